r"""Rank correlation of what happens to representations with what becomes of the edits (*Revisiting*, Section 4.4, B.6).

Spearman's rho is Pearson's correlation of ranks, ties sharing their mean rank. The p-value is that of
$t = \rho \sqrt{(n - 2) / (1 - \rho^2)}$ under Student's distribution with n - 2 degrees of freedom, two-sided: the one
that the paper's tables hold. It is an approximation for so few steps, and it takes steps for independent although each
builds on the last: read it as a size of the effect, not as a test. Knows numbers only.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_edit.errors import GeometryError


@dataclass(frozen=True, slots=True)
class Correlation:
    """Spearman's rank correlation.

    Args:
        rho: rho in -1..1; nan where one side never changes.
        p_value: Two-sided p-value; nan where rho is, or with fewer than three pairs.
        count: Number of pairs.
    """

    rho: float
    p_value: float
    count: int

    @property
    def stars(self) -> str:
        """The marks of the paper's tables: `*` below 0.05, `**` below 0.01, `***` below 0.001."""
        return "*" * sum(self.p_value < limit for limit in (0.05, 0.01, 0.001))


def spearman(x: Sequence[float], y: Sequence[float]) -> Correlation:
    """Spearman's correlation of pairs.

    Args:
        x: One side.
        y: The other, as long.

    Example:
        >>> spearman([1, 2, 3, 4, 5], [5, 6, 7, 8, 7]).rho.__round__(4)
        0.8208
    """
    if len(x) != len(y):
        raise GeometryError(f"Found {len(x)} and {len(y)} values; expected pairs.")
    if any(not math.isfinite(value) for value in (*x, *y)):
        raise GeometryError("Found values that are not finite; expected finite ones. Leave those steps out.")
    left, right = ranks(x), ranks(y)
    left, right = left - left.mean(), right - right.mean()
    norm = math.sqrt(float(left @ left) * float(right @ right)) if len(x) else 0.0
    if norm == 0:
        return Correlation(math.nan, math.nan, len(x))
    rho = max(-1.0, min(1.0, float(left @ right) / norm))
    return Correlation(rho, _p_value(rho, len(x)), len(x))


def ranks(values: Sequence[float]) -> Tensor:
    """Ranks from 1, equal values sharing the mean of theirs (n,).

    Args:
        values: Numbers.

    Example:
        >>> ranks([0.2, 0.1, 0.2, 0.9]).tolist()
        [2.5, 1.0, 2.5, 4.0]
    """
    known = torch.tensor(list(values), dtype=torch.float64)
    below = (known[:, None] > known[None, :]).sum(dim=1)
    equal = (known[:, None] == known[None, :]).sum(dim=1)
    return below.to(torch.float64) + (equal.to(torch.float64) + 1) / 2


def correlate(amplification: Sequence[float], metrics: Mapping[str, Sequence[float]]) -> dict[str, Correlation]:
    """Correlation of one step-level summary of R_k with each editing metric.

    Args:
        amplification: One number of each step.
        metrics: Values of each metric at the same steps.
    """
    return {name: spearman(amplification, values) for name, values in metrics.items()}


def _p_value(rho: float, count: int) -> float:
    """Two-sided p-value under Student's t with n - 2 degrees of freedom."""
    degrees = count - 2
    if degrees < 1:
        return math.nan
    if abs(rho) == 1:
        return 0.0
    # P(|t| > t0) = I_x(degrees / 2, 1 / 2) with x = degrees / (degrees + t0^2), which is 1 - rho^2
    return incomplete_beta(degrees / 2, 0.5, (1 - rho) * (1 + rho))


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function I_x(a, b), by its continued fraction (Lentz's method).

    Args:
        a: First parameter, positive.
        b: Second parameter, positive.
        x: In 0..1.
    """
    if x <= 0 or x >= 1:
        return min(max(x, 0.0), 1.0)
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast on the other side
        return 1 - incomplete_beta(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    tiny = 1e-300
    c, d = 1.0, 1 / _away_from_zero(1 - (a + b) * x / (a + 1), tiny)
    value = d
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _away_from_zero(1 + term * d, tiny)
            c = _away_from_zero(1 + term / c, tiny)
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * value


def _away_from_zero(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny
