"""The ledger's equations in primal form: one n x n factor, however many columns there are.

Knows keys and a prior; smaller than the Gram form past N ≈ n/2 columns, and better conditioned there. Refuses noise 0,
where C is undefined. Immutable, like the Gram form.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_edit.algebra.prior import Prior
from lightning_edit.algebra.triangles import cholesky, pack_triangle, solve_right, unpack_triangle
from lightning_edit.errors import LedgerError


@dataclass(frozen=True, slots=True)
class PrimalForm:
    r"""Solves with C = s A + Π K Kᵀ Π, where A is the prior's precision and Π projects onto range(Q).

    $$R (s I + K^\top Q K)^{-1} K^\top Q = R (\Pi K)^\top C^{-1}$$

    Args:
        prior: Q.
        noise: s.
        keys: K (n, N).
        matrix: C (n, n); only its lower triangle is meaningful.
        lower: Its Cholesky factor.
    """

    kind: ClassVar[str] = "primal"
    prior: Prior
    noise: float
    keys: Tensor
    matrix: Tensor
    lower: Tensor

    @classmethod
    def build(cls, prior: Prior, noise: float, keys: Tensor) -> "PrimalForm":
        """Factor a set of keys from nothing.

        Args:
            prior: Q.
            noise: s > 0.
            keys: K (n, N).
        """
        projected = prior.project(keys)
        matrix = noise * prior.precision() + projected @ projected.mT
        return cls(prior, noise, keys, matrix.tril(), _factor(matrix))

    def append(self, keys: Tensor, every: Tensor) -> "PrimalForm":
        """Add columns: one product and one n x n factorisation.

        Args:
            keys: The new keys (n, m).
            every: All keys (n, N + m), which the ledger keeps.
        """
        projected = self.prior.project(keys)
        matrix = self.matrix + projected @ projected.mT
        return PrimalForm(self.prior, self.noise, every, matrix.tril(), _factor(matrix))

    def correction(self, rows: Tensor) -> Tensor:
        """R (Π K)ᵀ C⁻¹ (m, n), with one step of refinement.

        The refinement is not a luxury: with little prior weight and a moment of condition 1e12, C squares what the
        Gram form does not, and the plain solve is off by 1e-7; one step brings it to 1e-10.

        Args:
            rows: R (m, N).
        """
        projected = self.prior.project(self.keys)  # (n, N)
        update = solve_right(rows @ projected.mT, self.lower)
        residual = (rows - update @ projected) @ projected.mT
        residual = residual - self.noise * self.prior.inverse_apply(update.mT).mT
        update = update + solve_right(residual, self.lower)
        return self.prior.project(update.mT).mT.contiguous()

    def condition(self) -> float:
        """Condition number of C, from the singular values of its factor."""
        values = torch.linalg.svdvals(self.lower)
        return float((values[0] / values[-1]) ** 2)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers, with the factor; keys and prior are the ledger's to save."""
        return {"matrix": pack_triangle(self.matrix), "lower": pack_triangle(self.lower)}

    @classmethod
    def from_state(cls, state: dict[str, Any], prior: Prior, noise: float, keys: Tensor) -> "PrimalForm":
        """Read back `state_dict`, bit for bit.

        Args:
            state: What it gave.
            prior: Q.
            noise: s.
            keys: K (n, N).
        """
        matrix, lower = (unpack_triangle(state[name].to(keys.device), prior.size) for name in ("matrix", "lower"))
        return cls(prior, noise, keys, matrix, lower)


def covariance(prior: Prior, noise: float, keys: Tensor) -> Tensor:
    """The running key covariance C = s Q⁻¹ + K Kᵀ in coordinates of range(Q).

    Args:
        prior: Q.
        noise: s.
        keys: K (n, N).

    Returns:
        C (r, r), r the rank of Q: key space itself for a prior of full rank, null-space coordinates otherwise.
    """
    inner = prior.coordinates(keys)  # (r, N)
    half = prior.coordinates(prior.precision())  # (r, n)
    matrix = noise * prior.coordinates(half.mT) + inner @ inner.mT
    return (matrix + matrix.mT) / 2


def _factor(matrix: Tensor) -> Tensor:
    """Cholesky factor of C, or a named error."""
    lower = cholesky(matrix)
    if lower is None:
        raise LedgerError(
            f"The key covariance C of size {matrix.shape[0]} cannot be factored; its largest diagonal entry is "
            f"{float(matrix.diagonal().max()):.3g}. Expected finite keys; check them, or give the prior more weight."
        )
    return lower
