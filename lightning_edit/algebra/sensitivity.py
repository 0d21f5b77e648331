r"""Sensitivity-aware solutions: an update pays more for the directions of the output that text hardly uses.

With u_k the principal directions of a projection's output on ordinary text and w_k > 0 their weights, minimise

$$\sum_k w_k \lVert u_k^\top D\, Q^{-1/2} \rVert^2 + \tfrac1s \lVert D K - R \rVert^2$$

over the update D = S - W_b, with the residual R = V - W_b K. In the basis of the u_k the rows decouple, and row k is
the ledger's one formula with noise s w_k:

$$u_k^\top D = u_k^\top R\, (s w_k I + K^\top Q K)^{-1} K^\top Q.$$

All rows share the Gram matrix, so one eigendecomposition of it, E diag(l) Eᵀ, gives them all:
$U^\top D = \bigl((U^\top R E)_{kj} / (l_j + s w_k)\bigr) E^\top K^\top Q$.

History, undo and conflicts follow by solving again for another active set. What is lost is the factor that grows: a
commit costs N³. And there is no single C_t, since each row has its own, s w_k Q⁻¹ + K Kᵀ. Knows a prior, keys and
directions; refuses to know models and requests.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_edit.algebra.checks import check_matrix
from lightning_edit.algebra.prior import Prior, checked_moment
from lightning_edit.errors import LedgerError, StateError

EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Directions of a projection's output and what a change of each costs, frozen.

    Args:
        directions: U (d, d), orthonormal, one direction a column.
        weights: w (d,), positive, with geometric mean 1.
    """

    directions: Tensor
    weights: Tensor

    @classmethod
    def from_moments(
        cls, base: Tensor, moment: Tensor, mean: Tensor, exponent: float = 1.0, cap: float = 1e3
    ) -> "Sensitivity":
        r"""Directions and weights from key statistics, without another pass over text.

        The covariance of the output W_b k over ordinary text is W_b (M - μ μᵀ) W_bᵀ; its eigenvectors are the u_k, its
        eigenvalues sigma_k² / n.

        Args:
            base: W_b (d, n).
            moment: M (n, n), second moment of the keys.
            mean: μ (n,), mean of the keys.
            exponent: See `sensitivity_weights`.
            cap: See `sensitivity_weights`.
        """
        exact = checked_moment(moment)
        weight = check_matrix("base weight", base, (len(base), len(exact)), exact.device)
        centre = weight @ check_matrix("mean key", mean[:, None], (len(exact), 1), exact.device)  # (d, 1)
        covariance = weight @ exact @ weight.mT - centre @ centre.mT  # (d, d)
        variances, directions = torch.linalg.eigh((covariance + covariance.mT) / 2)
        return cls(directions.contiguous(), sensitivity_weights(variances, exponent, cap))

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers."""
        return {"directions": self.directions, "weights": self.weights}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Sensitivity":
        """Read back `state_dict`, bit for bit.

        Args:
            state: What it gave.
        """
        size = len(state["weights"])
        if state["directions"].shape != (size, size):
            raise StateError(
                f"a saved sensitivity has {size} weights and directions {tuple(state['directions'].shape)}; expected "
                f"({size}, {size})."
            )
        return cls(state["directions"], state["weights"])


def sensitivity_weights(variances: Tensor, exponent: float = 1.0, cap: float = 1e3) -> Tensor:
    r"""Weights $w_k \propto \sigma_k^{-2 a}$ with geometric mean 1, none above a cap.

    Raw weights span as many decades as the spectrum does squared, and the last of them are rounding. Those that would
    pass the cap are set to it and the others are scaled up, so that the geometric mean stays 1: changing exponent or
    cap moves cost between directions and leaves the overall strength of the prior where it was.

    Args:
        variances: sigma_k² / n of each direction (d,); what lies below rounding counts as if it lay there.
        exponent: a; 0 gives equal weights, 1 those of the expected R_k².
        cap: Largest weight, at least 1; infinity for none.

    Example:
        >>> sensitivity_weights(torch.tensor([4.0, 1.0, 0.25]))
        tensor([0.2500, 1.0000, 4.0000], dtype=torch.float64)
        >>> sensitivity_weights(torch.tensor([4.0, 1.0, 0.25]), cap=2.0)
        tensor([0.3536, 1.4142, 2.0000], dtype=torch.float64)
    """
    if not 0 <= exponent < math.inf or not cap >= 1:
        raise LedgerError(f"Found exponent={exponent} and cap={cap}; expected an exponent >= 0 and a cap >= 1.")
    exact = variances.detach().to(torch.float64)
    largest = float(exact.max()) if len(exact) else 0.0
    if not 0 < largest < math.inf:
        raise LedgerError(
            f"The largest variance of the projection's output is {largest}; expected a positive one. Collect the key "
            "statistics from more than one token."
        )
    costs = -exponent * exact.clamp(min=EPS * len(exact) * largest).log()  # log w up to a constant
    return _centred(costs, math.log(cap)).exp()


def _centred(costs: Tensor, limit: float) -> Tensor:
    """min(costs + c, limit) for the c that makes the mean 0.

    With the m largest at the limit, c follows from the others; m is right when exactly those would pass it.
    """
    ordered = costs.sort(descending=True).values
    size = len(ordered)
    for capped in range(size):
        spent = limit * capped if capped else 0.0
        shift = -(spent + float(ordered[capped:].sum())) / (size - capped)
        if float(ordered[capped]) + shift <= limit * (1 + 4 * EPS):
            return (costs + shift).clamp(max=limit)
    return torch.zeros_like(costs)  # only where the cap is 1


@dataclass(frozen=True, slots=True)
class SensitiveForm:
    """Solves every row of the update with its own noise, through one eigendecomposition of the Gram matrix.

    Args:
        noise: s > 0.
        response: Q K (n, N).
        values: Eigenvalues l of KᵀQK (N,), none negative.
        vectors: Its eigenvectors E (N, N), one a column.
        sensitivity: Directions and weights of the output.
    """

    noise: float
    response: Tensor
    values: Tensor
    vectors: Tensor
    sensitivity: Sensitivity

    @classmethod
    def build(cls, prior: Prior, noise: float, keys: Tensor, sensitivity: Sensitivity) -> "SensitiveForm":
        """Decompose a set of keys.

        The Gram matrix is (F K)ᵀ(F K), and its eigenvalues are the squared singular values of F K: taken from there
        they are accurate relative to the largest singular value, and none comes out negative.

        Args:
            prior: Q = FᵀF.
            noise: s; with 0 every value is met whatever it costs, and weights change nothing.
            keys: K (n, N), float64.
            sensitivity: Directions and weights.
        """
        if not 0 < noise < math.inf:
            raise LedgerError(
                f"The noise is {noise}; expected a finite number > 0: without noise every value is met exactly, and "
                "weights of directions change nothing."
            )
        half = prior.half(keys)
        triangle = torch.linalg.qr(half, mode="r").R  # (min(n, N), N), with the singular values of F K
        _, singular, rows = torch.linalg.svd(triangle, full_matrices=True)  # rows: Eᵀ (N, N)
        values = torch.cat([singular**2, singular.new_zeros(len(rows) - len(singular))])
        return cls(float(noise), prior.lift(half), values, rows.mT.contiguous(), sensitivity)

    def coefficients(self, rows: Tensor) -> Tensor:
        """B (d, N) with D = B (Q K)ᵀ: the adapter's left factor.

        Args:
            rows: Residual R = V - W_b K (d, N).
        """
        directions, weights = self.sensitivity.directions, self.sensitivity.weights
        if rows.shape != (len(weights), len(self.values)):
            raise LedgerError(
                f"The residual has shape {tuple(rows.shape)}; expected ({len(weights)}, {len(self.values)}), one row "
                "for each direction and one column for each key."
            )
        turned = directions.mT @ rows @ self.vectors  # (d, N)
        solved = turned / (self.values + self.noise * weights[:, None])
        return directions @ (solved @ self.vectors.mT)

    def correction(self, rows: Tensor) -> Tensor:
        """D (d, n).

        Args:
            rows: Residual R = V - W_b K (d, N).
        """
        return self.coefficients(rows) @ self.response.mT


def sensitive_solution(
    base: Tensor, prior: Prior, noise: float, keys: Tensor, values: Tensor, sensitivity: Sensitivity
) -> Tensor:
    """The edited weight S (d, n), float64.

    Args:
        base: W_b (d, n).
        prior: Q.
        noise: s > 0.
        keys: K (n, N).
        values: V (d, N).
        sensitivity: Directions and weights of the output.
    """
    weight = check_matrix("base weight", base, (len(sensitivity.weights), prior.size), base.device)
    own_keys = check_matrix("matrix of keys", keys, (prior.size, keys.shape[-1]), base.device)
    own_values = check_matrix("matrix of values", values, (len(weight), own_keys.shape[1]), base.device)
    form = SensitiveForm.build(prior, noise, own_keys, sensitivity)
    return weight + form.correction(own_values - weight @ own_keys)


def penalty(update: Tensor, precision: Tensor, sensitivity: Sensitivity) -> float:
    r"""What an update pays, $\sum_k w_k\, u_k^\top D\, Q^{-1} D^\top u_k$.

    With Q⁻¹ = λ M and weights n / sigma_k² it is λ times the sum of the expected R_k²: u_kᵀ D M Dᵀ u_k is the mean over
    ordinary text of c_k².

    Args:
        update: D (d, n).
        precision: Q⁻¹ (n, n).
        sensitivity: Directions and weights.
    """
    rows = sensitivity.directions.mT @ update.to(torch.float64)  # (d, n)
    return float((sensitivity.weights * ((rows @ precision) * rows).sum(dim=1)).sum())
