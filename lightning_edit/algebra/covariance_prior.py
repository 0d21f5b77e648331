"""Priors made of the keys' second moment: Q = (w M)⁻¹, and Q = (w M + μ I)⁻¹ on request.

Knows one Cholesky factor. Refuses to mend a rank-deficient moment: a ridge changes the problem (at a condition of 1e12
the exact solution moves by more than half), so it is somebody's decision and has a class of its own.
"""

from typing import Any, Self

import torch
from torch import Tensor

from lightning_edit.algebra.prior import Prior, checked_moment, checked_number, fingerprint
from lightning_edit.algebra.triangles import (
    cholesky,
    numerical_rank,
    pack_triangle,
    rounding_level,
    smallest_correlation_eigenvalue,
    unpack_triangle,
)
from lightning_edit.errors import StatisticsError


class CovariancePrior(Prior):
    """Q = (w M)⁻¹, held as the Cholesky factor L of w M.

    The update D pays w tr(D M Dᵀ): what it does to the projection's output on ordinary text (MEMIT, Meng et al. 2023,
    eq. 14 and 15, with w = λ; ROME with w = 1).

    Args:
        moment: Second moment M (n, n) of the keys.
        weight: w.

    Raises:
        StatisticsError: M has not full rank; the message states the rank and the number of dead directions.
    """

    kind = "covariance"

    def __init__(self, moment: Tensor, weight: float) -> None:
        """Check M and factor w M."""
        weight = checked_number("weight", weight)
        exact = checked_moment(moment)
        lower = cholesky(weight * exact)
        if lower is None or _looks_singular(lower):
            raise _rank_error(exact)
        self._hold(fingerprint(self.kind, {"weight": weight}, exact), lower=lower)

    def _hold(self, name: str, **parts: Any) -> None:
        self._lower: Tensor = parts["lower"]
        Prior.__init__(self, self._lower.shape[0], self._lower.shape[0], name)

    def _parts(self) -> dict[str, Any]:
        return {"lower": self._lower}

    def half(self, columns: Tensor) -> Tensor:
        """L⁻¹ X."""
        halves: Tensor = torch.linalg.solve_triangular(self._lower, columns, upper=False)
        return halves.contiguous()

    def lift(self, halves: Tensor) -> Tensor:
        """L⁻ᵀ Z."""
        lifted: Tensor = torch.linalg.solve_triangular(self._lower.mT, halves, upper=True)
        return lifted.contiguous()

    def project(self, columns: Tensor) -> Tensor:
        """X: the range is the whole space."""
        return columns

    def inverse_apply(self, columns: Tensor) -> Tensor:
        """L (Lᵀ X)."""
        return self._lower @ (self._lower.mT @ columns)

    def precision(self) -> Tensor:
        """L Lᵀ (n, n)."""
        return self._lower @ self._lower.mT

    def coordinates(self, columns: Tensor) -> Tensor:
        """X: the basis is the identity."""
        return columns

    def state_dict(self) -> dict[str, Any]:
        """The packed factor and the fingerprint, as tensors and plain containers."""
        parts = {"lower": pack_triangle(self._lower), "size": self.size}
        return {"kind": self.kind, "fingerprint": self.fingerprint, "parts": parts}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild the prior without factoring anything.

        Args:
            state: What `state_dict` gave.
        """
        parts = state["parts"]
        return cls._assemble(state["fingerprint"], {"lower": unpack_triangle(parts["lower"], parts["size"])})


class RidgePrior(CovariancePrior):
    """Q = (w M + μ I)⁻¹: EMMET's prior (Gupta et al. 2024), and the one for a moment without full rank.

    Args:
        moment: Second moment M (n, n) of the keys.
        weight: w.
        ridge: μ > 0.

    Raises:
        StatisticsError: The ridge is lost in rounding beside the moment.
    """

    kind = "ridge"

    def __init__(self, moment: Tensor, weight: float, ridge: float) -> None:
        """Check M and factor w M + μ I."""
        weight, ridge = checked_number("weight", weight, allow_zero=True), checked_number("ridge", ridge)
        exact = checked_moment(moment)
        matrix = weight * exact
        matrix.diagonal().add_(ridge)
        lower = cholesky(matrix)
        if lower is None or _looks_singular(lower):
            raise StatisticsError(
                f"The ridge {ridge:g} is lost in rounding beside weight * moment, whose largest entry is "
                f"{weight * float(exact.abs().max()):.3g}. Use a larger ridge."
            )
        self._hold(fingerprint(self.kind, {"weight": weight, "ridge": ridge}, exact), lower=lower)


def _looks_singular(lower: Tensor) -> bool:
    """Whether L Lᵀ, scaled to a unit diagonal, has an eigenvalue at the level of rounding."""
    diagonal = (lower * lower).sum(dim=1)
    return smallest_correlation_eigenvalue(lower, diagonal) <= rounding_level(lower.shape[0])


def _rank_error(moment: Tensor) -> StatisticsError:
    """The error that says how far a moment is from full rank."""
    size = moment.shape[0]
    rank = min(numerical_rank(moment), size - 1)
    silent = (moment.diagonal() == 0).nonzero().flatten().tolist()
    units = f", {len(silent)} of them units that never fired (first: {silent[:5]})" if silent else ""
    return StatisticsError(
        f"The second moment has rank {rank} of {size}: {size - rank} dead directions{units}. Expected full rank. "
        "Collect keys from more tokens, or ask for a ridge with RidgePrior(moment, weight, ridge), "
        "which changes the problem that is solved."
    )
