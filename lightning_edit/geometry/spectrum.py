r"""The spectrum of hidden representations: how strongly each principal direction is used.

$$H - \mu \mathbf{1}^\top = U \Sigma V^\top, \qquad H \in \mathbb{R}^{d \times n} \text{ with one sample a column}$$

Knows a centred root and what numbers can say about it. The mean is that of each feature over the samples: centring each
sample over its features instead makes the all-ones vector a null direction, and a condition number out of nothing.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_edit.errors import GeometryError, StateError
from lightning_edit.geometry.root import add_rows, centred_factor, checked_rows, empty_root, row_count, row_mean

EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True, slots=True)
class Spectrum:
    r"""Principal directions of n representations and the scale of each.

    Singular values below $\epsilon\,\sigma_1 \max(n, d)$, with the $\epsilon$ of float64 in which they are computed,
    cannot be told from zero. They are counted and left out of everything else.

    Args:
        sigma: All singular values (d,), largest first.
        directions: U (d, d), one direction a column, in the order of `sigma`.
        mean: Mean representation (d,).
        count: n, the number of samples.
    """

    sigma: Tensor
    directions: Tensor
    mean: Tensor
    count: int

    @property
    def size(self) -> int:
        """Number of features, d."""
        return len(self.sigma)

    @property
    def floor(self) -> float:
        """Level below which a singular value is rounding, ε sigma_1 max(n, d)."""
        return float(EPS * self.sigma[0]) * max(self.count, self.size)

    @property
    def rank(self) -> int:
        """Number of directions above the floor; the others are the last ones."""
        return int((self.sigma > self.floor).sum())

    @property
    def basis(self) -> Tensor:
        """Directions above the floor (d, rank)."""
        return self.directions[:, : self.rank]

    @property
    def scale(self) -> Tensor:
        """RMS of the representations along each direction above the floor, sigma_k / √n (rank,) (Eq. 10)."""
        return self.sigma[: self.rank] / math.sqrt(self.count)

    @property
    def condition(self) -> float:
        """sigma_1 / sigma_min, over the directions above the floor; nan where there is none."""
        return float(self.sigma[0] / self.sigma[self.rank - 1]) if self.rank else math.nan

    @property
    def effective_rank(self) -> float:
        """Exp of the entropy of sigma_k / Σ sigma (Roy and Vetterli 2007), over the directions above the floor."""
        return effective_rank(self.sigma[: self.rank])

    def rounding(self, dtype: torch.dtype) -> float:
        r"""Singular value that rounding the representations to a dtype alone would produce, about.

        Rounding moves an entry h by an independent error of standard deviation at most $\epsilon |h| / \sqrt{12}$, and
        n samples of such noise have singular values near $\sqrt n$ times that. Directions below this level carry what
        the model's precision left over, whatever the decomposition can resolve.

        Args:
            dtype: The precision in which the model computed the representations.
        """
        square = float((self.sigma**2).sum()) + self.count * float(self.mean @ self.mean)
        return torch.finfo(dtype).eps * math.sqrt(square / (12 * self.size))

    def summary(self, dtype: torch.dtype | None = None) -> dict[str, float]:
        """What Table 1 and Tables 5 to 8 of Revisiting state of a layer, and the floor that they leave out.

        Args:
            dtype: Precision of the model; with it the number of directions below `rounding` is added.
        """
        rank = self.rank
        values = {
            "sigma_1": float(self.sigma[0]),
            "sigma_min": float(self.sigma[rank - 1]) if rank else math.nan,
            "sigma_floor": self.floor,
            "under_floor": float(self.size - rank),
            "condition": self.condition,
            "effective_rank": self.effective_rank,
            "effective_rank_share": self.effective_rank / self.size,
            "samples": float(self.count),
        }
        if dtype is not None:
            values["under_rounding"] = float((self.sigma <= self.rounding(dtype)).sum())
        return values

    def to(self, device: torch.device | str) -> "Spectrum":
        """The same spectrum with its tensors on a device.

        Args:
            device: Where to.
        """
        return Spectrum(self.sigma.to(device), self.directions.to(device), self.mean.to(device), self.count)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers."""
        return {"sigma": self.sigma, "directions": self.directions, "mean": self.mean, "count": self.count}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Spectrum":
        """Read back `state_dict`, bit for bit.

        Args:
            state: What it gave.
        """
        size = len(state["sigma"])
        if state["directions"].shape != (size, size) or state["mean"].shape != (size,):
            raise StateError(
                f"a saved spectrum has {size} singular values, directions {tuple(state['directions'].shape)} and a "
                f"mean {tuple(state['mean'].shape)}; expected ({size}, {size}) and ({size},). Measure it again."
            )
        return cls(state["sigma"], state["directions"], state["mean"], int(state["count"]))


def spectrum(rows: Tensor) -> Spectrum:
    """Spectrum of representations that are all there.

    Args:
        rows: Representations (n, d), one sample a row.

    Example:
        >>> found = spectrum(torch.tensor([[3.0, 1.0], [-3.0, 1.0], [0.0, 3.0], [0.0, -1.0]]))
        >>> [round(float(value), 4) for value in found.sigma], found.mean.tolist()
        ([4.2426, 2.8284], [0.0, 1.0])
    """
    if rows.ndim != 2:
        raise GeometryError(f"Found representations of shape {tuple(rows.shape)}; expected (n, d), one sample a row.")
    return spectrum_of_root(add_rows(empty_root(rows.shape[1], rows.device), checked_rows(rows, rows.shape[1])))


def spectrum_of_root(root: Tensor) -> Spectrum:
    """Spectrum of everything that a root has seen.

    Args:
        root: A root (d + 2, d + 1), see `geometry.root`.
    """
    _, sigma, rows = torch.linalg.svd(centred_factor(root))
    return Spectrum(sigma, rows.mT.contiguous(), row_mean(root), row_count(root))


def effective_rank(sigma: Tensor) -> float:
    r"""Exponential of the entropy of the normalised singular values.

    $$\exp\Bigl(-\sum_k p_k \log p_k\Bigr), \qquad p_k = \sigma_k / \sum_j \sigma_j$$

    Args:
        sigma: Singular values, none negative; without a positive one the rank is 0.

    Example:
        >>> round(effective_rank(torch.tensor([2.0, 2.0, 2.0, 0.0])), 6)
        3.0
    """
    positive = sigma[sigma > 0].to(torch.float64)
    if len(positive) == 0:
        return 0.0
    share = positive / positive.sum()
    return float(torch.exp(-(share * share.log()).sum()))
