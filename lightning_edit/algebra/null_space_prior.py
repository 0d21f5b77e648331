"""Priors that allow an update only where ordinary text hardly ever goes: the null space of the keys' second moment.

Knows eigenvectors of M and where the line between used and null is drawn. Refuses a line that leaves nothing to edit,
and one that leaves nothing to protect.
"""

import math
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lightning_edit.algebra.prior import Prior, checked_moment, checked_number, fingerprint
from lightning_edit.algebra.triangles import rounding_level
from lightning_edit.errors import StatisticsError


class NullSpacePrior(Prior):
    """Q = P / L2, where P = I - U Uᵀ projects onto the null space of M (AlphaEdit, Fang et al. 2025).

    Only the range U (n, r) of M is held. Exactly one of `threshold` and `energy` says what counts as null.

    Args:
        moment: Second moment M (n, n) of the keys; it need not have full rank.
        threshold: Directions whose eigenvalue is below it are null (the paper's absolute 2e-2).
        energy: The weakest directions are null, as many as together hold at most this share of trace(M).
        l2: Strength of the L2 penalty on the update.

    Raises:
        StatisticsError: Nothing is null, or everything is.
    """

    kind = "null_space"

    def __init__(
        self, moment: Tensor, threshold: float | None = None, energy: float | None = None, l2: float = 1.0
    ) -> None:
        """Split key space by the eigenvalues of M."""
        l2 = checked_number("l2", l2)
        exact = checked_moment(moment)
        values, vectors = torch.linalg.eigh(exact)
        null = null_count(values, threshold, energy)
        options = {"threshold": threshold, "energy": energy, "l2": l2}
        self._hold(fingerprint(self.kind, options, exact), used=vectors[:, null:].contiguous(), l2=l2)

    def _hold(self, name: str, **parts: Any) -> None:
        self._used: Tensor = parts["used"]  # (n, r) orthonormal
        self._l2: float = parts["l2"]
        super().__init__(self._used.shape[0], self._used.shape[0] - self._used.shape[1], name)

    def _parts(self) -> dict[str, Any]:
        return {"used": self._used, "l2": self._l2}

    def half(self, columns: Tensor) -> Tensor:
        """P X / √L2."""
        return self.project(columns) / math.sqrt(self._l2)

    def lift(self, halves: Tensor) -> Tensor:
        """P Z / √L2 = Z / √L2, since the columns of Z lie in range(P) already."""
        return halves / math.sqrt(self._l2)

    @property
    def lift_factor(self) -> float:
        """1 / √L2."""
        return 1 / math.sqrt(self._l2)

    def project(self, columns: Tensor) -> Tensor:
        """P X = X - U (Uᵀ X)."""
        outside: Tensor = columns - self._used @ (self._used.mT @ columns)
        return outside

    def inverse_apply(self, columns: Tensor) -> Tensor:
        """L2 P X."""
        return self.project(columns) * self._l2

    def precision(self) -> Tensor:
        """L2 I (n, n)."""
        return torch.eye(self.size, dtype=self._used.dtype, device=self._used.device) * self._l2

    def coordinates(self, columns: Tensor) -> Tensor:
        """Null-space coordinates Bᵀ X (n - r, m), with B the orthogonal complement of U."""
        return self._complement.mT @ columns

    @cached_property
    def _complement(self) -> Tensor:
        """B (n, n - r), made only for read-outs."""
        complete: Tensor = torch.linalg.qr(self._used, mode="complete").Q  # (n, n): U up to signs, then B
        return complete[:, self._used.shape[1] :].contiguous()


class ProjectedPrior(Prior):
    """Q = P (w P M P + L2 I)⁺ P: null-space projection that keeps the moment inside it (Labyrinth, Prop. 3.2).

    Held as the eigenvectors B (n, q) of M in its null space and the penalty w λ + L2 of each. The square root used is
    the symmetric one, which does not depend on how degenerate eigenvectors were rotated.

    Args:
        moment: Second moment M (n, n) of the keys.
        weight: w.
        threshold: Directions whose eigenvalue is below it are null.
        energy: The weakest directions are null, as many as together hold at most this share of trace(M).
        l2: Strength of the L2 penalty on the update; 0 asks for a moment without dead directions.

    Raises:
        StatisticsError: Nothing is null, or everything is, or L2 is 0 and some null direction is used by no text.
    """

    kind = "projected"

    def __init__(
        self,
        moment: Tensor,
        weight: float,
        threshold: float | None = None,
        energy: float | None = None,
        l2: float = 1.0,
    ) -> None:
        """Split key space by the eigenvalues of M and price the null directions."""
        weight, l2 = checked_number("weight", weight, allow_zero=True), checked_number("l2", l2, allow_zero=True)
        exact = checked_moment(moment)
        values, vectors = torch.linalg.eigh(exact)
        null = null_count(values, threshold, energy)
        penalty = weight * values[:null].clamp(min=0) + l2
        if l2 == 0:
            _refuse_free_directions(penalty, weight * values[-1])
        options = {"weight": weight, "threshold": threshold, "energy": energy, "l2": l2}
        self._hold(fingerprint(self.kind, options, exact), basis=vectors[:, :null].contiguous(), penalty=penalty)

    def _hold(self, name: str, **parts: Any) -> None:
        self._basis: Tensor = parts["basis"]  # (n, q) orthonormal
        self._penalty: Tensor = parts["penalty"]  # (q,)
        super().__init__(self._basis.shape[0], self._basis.shape[1], name)

    def _parts(self) -> dict[str, Any]:
        return {"basis": self._basis, "penalty": self._penalty}

    def _function(self, columns: Tensor, diagonal: Tensor) -> Tensor:
        """B diag Bᵀ X."""
        return self._basis @ (diagonal[:, None] * (self._basis.mT @ columns))

    def half(self, columns: Tensor) -> Tensor:
        """B (w λ + L2)^(-1/2) Bᵀ X."""
        return self._function(columns, self._penalty.rsqrt())

    def lift(self, halves: Tensor) -> Tensor:
        """B (w λ + L2)^(-1/2) Bᵀ Z: the square root is symmetric."""
        return self._function(halves, self._penalty.rsqrt())

    def project(self, columns: Tensor) -> Tensor:
        """B Bᵀ X."""
        return self._basis @ (self._basis.mT @ columns)

    def inverse_apply(self, columns: Tensor) -> Tensor:
        """B (w λ + L2) Bᵀ X."""
        return self._function(columns, self._penalty)

    def precision(self) -> Tensor:
        """B (w λ + L2) Bᵀ on the null space, the largest penalty on the rest."""
        largest = self._penalty.max()
        eye = torch.eye(self.size, dtype=self._basis.dtype, device=self._basis.device)
        return largest * eye - self._function(eye, largest - self._penalty)

    def coordinates(self, columns: Tensor) -> Tensor:
        """Bᵀ X (q, m)."""
        return self._basis.mT @ columns


def null_count(values: Tensor, threshold: float | None, energy: float | None) -> int:
    """How many of the ascending eigenvalues of M count as null.

    Args:
        values: Eigenvalues (n,), ascending.
        threshold: Those below it are null.
        energy: The smallest are null, as many as together hold at most this share of their sum.

    Raises:
        StatisticsError: Not exactly one rule is given, or the rule leaves nothing to edit or nothing to protect.
    """
    if (threshold is None) == (energy is None):
        raise StatisticsError(
            f"Got threshold={threshold} and energy={energy}; expected exactly one of them. The threshold is absolute, "
            "the energy is a share of trace(M) and does not depend on the scale of the keys."
        )
    if threshold is not None:
        null, rule = int((values < checked_number("threshold", threshold)).sum()), f"threshold {threshold:g}"
    else:
        held = values.clamp(min=0).cumsum(0)
        null, rule = int((held <= checked_number("energy", energy or 0.0) * held[-1]).sum()), f"energy {energy:g}"
    smallest, largest = float(values[0]), float(values[-1])
    if null == 0 or null == len(values):
        what = "no direction is null, so nothing could be edited" if null == 0 else "every direction is null"
        raise StatisticsError(
            f"With {rule} {what}: the eigenvalues of the second moment run from {smallest:.3g} to {largest:.3g}. "
            "Expected some on either side. Choose another threshold, or an energy between 0 and 1."
        )
    return null


def _refuse_free_directions(penalty: Tensor, largest: Tensor) -> None:
    """Raise when an update along some null direction would cost nothing, up to rounding."""
    free = int((penalty <= rounding_level(len(penalty)) * largest).sum())
    if free:
        raise StatisticsError(
            f"{free} of {len(penalty)} null directions are used by no text, and with l2 = 0 an update along them costs "
            "nothing. Give an l2 > 0, or collect keys from more tokens."
        )
