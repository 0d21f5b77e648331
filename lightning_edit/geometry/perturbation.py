r"""Perturbation norms: how far an edit moves hidden representations, $\lVert \Delta h \rVert_2$ over samples.

Mean, standard deviation, smallest and largest are what Tables 9 to 12 of *Revisiting* state. Knows vectors. Both sides
of a difference must come from the same prompts, pooling, precision and padding; the null-edit control shows it.

The statistics of a stream are one float64 vector: count, mean, sum of squared deviations, smallest, largest. Streams
are merged after Chan, Golub and LeVeque (1979).
"""

import math

import torch
from torch import Tensor

from lightning_edit.errors import GeometryError


def empty_moments() -> Tensor:
    """Statistics of no number (5,)."""
    return torch.tensor([0.0, 0.0, 0.0, math.inf, -math.inf], dtype=torch.float64)


def moments_of(values: Tensor) -> Tensor:
    """Statistics of some numbers (5,).

    Args:
        values: Numbers (m,).
    """
    exact = values.to(torch.float64)
    if len(exact) == 0:
        return empty_moments().to(exact.device)
    mean = exact.mean()
    count = mean.new_tensor(float(len(exact)))
    return torch.stack([count, mean, ((exact - mean) ** 2).sum(), exact.min(), exact.max()])


def merge_moments(many: Tensor) -> Tensor:
    """Statistics of all numbers that several streams have seen.

    Args:
        many: Statistics (m, 5).
    """
    count = many[:, 0].sum()
    if count == 0:
        return many[0]
    mean = (many[:, 0] * many[:, 1]).sum() / count
    squares = (many[:, 2] + many[:, 0] * (many[:, 1] - mean) ** 2).sum()
    return torch.stack([count, mean, squares, many[:, 3].min(), many[:, 4].max()])


def norm_summary(moments: Tensor) -> dict[str, float]:
    """Mean, standard deviation (over m, not m - 1), smallest and largest of the norms.

    Args:
        moments: Statistics (5,) of at least one norm.
    """
    count, mean, squares, low, high = moments.tolist()
    if count == 0:
        raise GeometryError("No change has been seen; expected at least one sample.")
    return {"mean": mean, "std": math.sqrt(squares / count), "min": low, "max": high}


def perturbation_norms(changes: Tensor) -> dict[str, float]:
    """Statistics of the norms of changes that are all there.

    Args:
        changes: Δh (m, d), after minus before, one sample a row.

    Example:
        >>> perturbation_norms(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        {'mean': 2.5, 'std': 2.5, 'min': 0.0, 'max': 5.0}
    """
    return norm_summary(moments_of(changes.to(torch.float64).norm(dim=-1)))
