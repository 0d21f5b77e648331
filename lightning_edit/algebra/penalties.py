"""Convex penalties on an update: what an exact weight may minimise besides the ledger's own terms.

A penalty is a function of the update, known by its proximal map. Refuses to know ledgers; how the penalised solution is
found stands in `proximal.py`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from lightning_edit.errors import LedgerError


@dataclass(frozen=True, kw_only=True)
class Penalty(ABC):
    """A convex function g of the update that is smallest at 0, known by its proximal map. Subclass it.

    Args:
        tolerance: The solution is found when its duality gap is at most this share of ½ ‖V - W_b K‖². Edited outputs
            are then within the root of it, relative to ‖V - W_b K‖: within a thousandth at 1e-6. Two solutions of the
            same columns, found in other steps, are within twice that of each other.
        max_steps: Give up after this many steps.
    """

    tolerance: float = 1e-6
    max_steps: int = 5_000

    @abstractmethod
    def prox(self, point: Tensor, step: float) -> Tensor:
        """Where g(X) + ‖X - point‖² / (2 step) is smallest.

        Args:
            point: A matrix (d, n), float64.
            step: A positive number.

        Returns:
            X (d, n); the point itself is not written to.
        """


@dataclass(frozen=True, kw_only=True)
class L1Penalty(Penalty):
    """g(D) = w Σ |D_ij|: a sparse update. At w = max |(V - W_b K) Kᵀ| and above, it is 0.

    Args:
        weight: w >= 0.
    """

    weight: float

    def __post_init__(self) -> None:
        """Refuse a weight for which this is not convex."""
        if not 0 <= self.weight < float("inf"):
            raise LedgerError(f"The L1 penalty has weight {self.weight}; expected a finite number >= 0.")

    def prox(self, point: Tensor, step: float) -> Tensor:
        """Move every entry towards 0 by w * step."""
        return point.sign() * (point.abs() - self.weight * step).clamp_min(0)
