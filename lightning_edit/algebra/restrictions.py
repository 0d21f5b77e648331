r"""Restrictions: what turns the update one wants into the update one allows.

RECT keeps the entries that change most relative to the weight, PRUNE flattens the upper end of the update's spectrum.
Both are exact, and neither sorts a weight's entries or decomposes a whole matrix where its upper end will do. How a
restricted update reaches the model stands in `deployment.py`.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from lightning_edit.algebra.selection import kth_smallest
from lightning_edit.algebra.spectrum import largest_singular_value, triplets_above
from lightning_edit.errors import LedgerError


class Restriction(Protocol):
    """Turns the update one wants into the update one allows."""

    def __call__(self, update: Tensor, reference: Tensor) -> Tensor:
        """Restrict an update.

        Args:
            update: The wanted update (d, n), float64.
            reference: The weight it is relative to (d, n), float64.

        Returns:
            The allowed update (d, n).
        """
        ...


def identity(update: Tensor, reference: Tensor) -> Tensor:
    """Allow everything.

    Args:
        update: The wanted update (d, n).
        reference: Not looked at.
    """
    return update


@dataclass(frozen=True)
class TopKRelativeChange:
    """RECT: keep the entries that change most relative to the weight, zero the rest (Gu et al. 2024).

    An entry's relative change is |D| / (|W| + ε); ties with the smallest kept one are kept.

    Args:
        fraction: Share of the entries that is kept (published code: 0.2 or 0.4).
        epsilon: ε, keeps entries of weight 0 finite.
    """

    fraction: float = 0.2
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        """Refuse a share outside (0, 1] and an ε that divides by zero."""
        if not 0 < self.fraction <= 1 or not self.epsilon > 0:
            raise LedgerError(
                f"RECT got fraction={self.fraction} and epsilon={self.epsilon}; expected a fraction in (0, 1] and an "
                "epsilon > 0."
            )

    def __call__(self, update: Tensor, reference: Tensor) -> Tensor:
        """Keep the top entries of `update` relative to `reference`."""
        # How many are smaller than the smallest kept one: rounded down, but for what 1 - 0.9 is short of 0.1.
        dropped = math.floor(update.numel() * (1 - self.fraction) + 1e-6)
        if dropped == 0:
            return update
        change = (update.abs() / (reference.abs() + self.epsilon)).to(torch.float64)
        threshold = kth_smallest(change, dropped)
        return torch.where(change >= threshold, update, torch.zeros_like(update))


@dataclass(frozen=True)
class SpectrumLimit:
    r"""PRUNE: flatten singular values of the update above c, the largest one of the reference (Ma et al. 2025).

    $$s \mapsto c + \log_b s - \log_b c \quad (\text{log}), \qquad s \mapsto (s + c) / 2 \quad (\text{linear}),
    \qquad s > c$$

    The formula is the published one. Just above c its slope is 1 / (c ln b): where c ln b < 1 it raises values there
    before it flattens them further up.

    Args:
        base: Base b > 1 of the logarithm (published: 1.2 and e).
        variant: "log" or "linear".
        multiple: How many times the largest singular value c is (published: 1).
    """

    base: float = math.e
    variant: Literal["log", "linear"] = "log"
    multiple: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a base that makes no growing logarithm and an unknown variant."""
        if not self.base > 1 or self.variant not in ("log", "linear"):
            raise LedgerError(
                f"PRUNE got base={self.base} and variant={self.variant!r}; expected a base > 1 and 'log' or 'linear'."
            )
        if not 0 < self.multiple < math.inf:
            raise LedgerError(f"PRUNE got multiple={self.multiple}; expected a finite number above 0.")

    def __call__(self, update: Tensor, reference: Tensor) -> Tensor:
        """Flatten the spectrum of `update` above that of `reference`; the rest of it is not touched."""
        limit = self.multiple * largest_singular_value(reference)
        high = triplets_above(update, limit)
        if not len(high.values):
            return update
        excess = high.values - limit
        allowed = excess / 2 if self.variant == "linear" else torch.log(high.values / limit) / math.log(self.base)
        removed: Tensor = (high.left * (excess - allowed)) @ high.right
        return update - removed
