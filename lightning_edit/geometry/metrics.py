"""The geometry of representations as torchmetrics: one pass, float64 states, no activations kept.

States are sums and triangular factors, so they add up over batches and processes; what they mean is in the functional
files. A Trainer in half precision moves these metrics and never rounds them. This file reads no model: it is fed rows.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_edit.geometry.root import add_rows, checked_rows, empty_root, merge_roots
from lightning_edit.geometry.spectrum import Spectrum, spectrum_of_root
from lightning_edit.geometry.stability import SIZES, principal_cosines, stability, usable_sizes


class GeometryMetric(Metric):
    """A metric whose states stay float64 wherever it is moved.

    Args:
        kwargs: Arguments of every torchmetrics metric.
    """

    is_differentiable = False
    full_state_update = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> "GeometryMetric":
        """Follow the module to another device, and leave the precision alone.

        Args:
            fn: What is done to the module's tensors.
            exclude_state: Unused: no state is handed to `fn`.
        """
        super()._apply(fn, exclude_state=tuple(self._defaults))
        home = self.device if self.device.type != "mps" else torch.device("cpu")  # which has no float64
        for name, default in self._defaults.items():
            self._defaults[name] = _moved(default, home)
            setattr(self, name, _moved(getattr(self, name), home))
        return self


class RepresentationSpectrum(GeometryMetric):
    """Singular values and principal directions of a stream of representations, centred per feature.

    Rows wait until there are about as many as features and are then folded into a triangular factor
    (`geometry.root`): at most max(d, 256) of them are kept at any time.

    Args:
        size: d, the number of features.
        dtype: Precision in which the model computes the representations; with it the summary counts the directions
            that carry no more than its rounding.
        kwargs: Arguments of every torchmetrics metric.

    Example:
        >>> metric = RepresentationSpectrum(size=2)
        >>> metric.update(torch.tensor([[3.0, 1.0], [-3.0, 1.0]]))
        >>> metric.update(torch.tensor([[0.0, 3.0], [0.0, -1.0]]))
        >>> round(metric.compute()["condition"].item(), 4)
        1.5
    """

    higher_is_better = None
    root: Tensor
    pending: list[Tensor]

    def __init__(self, size: int, dtype: torch.dtype | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = size
        self.dtype_of_model = dtype
        self.add_state("root", empty_root(size), dist_reduce_fx=merge_roots)
        self.add_state("pending", [], dist_reduce_fx="cat")

    def update(self, rows: Tensor) -> None:
        """Add representations.

        Args:
            rows: Representations (..., d), padding left out.
        """
        exact = checked_rows(rows, self.size).to(self.root.device, torch.float64)
        self.pending.append(exact)
        if sum(map(len, self.pending)) >= max(self.size, 256):
            self._fold()

    def spectrum(self) -> Spectrum:
        """The spectrum of everything that this process has seen; under several, call it inside `sync_context`."""
        return spectrum_of_root(add_rows(self.root, self._waiting()))

    def compute(self) -> dict[str, Tensor]:
        """Summary of the spectrum, see `Spectrum.summary`."""
        return as_tensors(self.spectrum().summary(self.dtype_of_model), self.root.device)

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Fold what is waiting before states are gathered.

        Args:
            args: See torchmetrics.
            kwargs: See torchmetrics.
        """
        self._fold()
        super().sync(*args, **kwargs)

    def _fold(self) -> None:
        self.root = add_rows(self.root, self._waiting())
        self.pending = [self.root.new_zeros(0, self.size)]

    def _waiting(self) -> Tensor:
        """Rows that wait; after gathering torchmetrics holds them as one tensor."""
        waiting: list[Tensor] | Tensor = self.pending
        if isinstance(waiting, Tensor):
            return waiting.reshape(-1, self.size)
        return torch.cat(waiting) if waiting else self.root.new_zeros(0, self.size)


class SubspaceStability(RepresentationSpectrum):
    """How far the first k principal directions have turned away from those of a reference.

    Args:
        basis: Spectrum of the representations before.
        sizes: Candidates for k; those with 2 k <= d and enough directions above the floor are used.
        kwargs: Arguments of every torchmetrics metric.
    """

    def __init__(self, basis: Spectrum, sizes: Sequence[int] = SIZES, **kwargs: Any) -> None:
        super().__init__(basis.size, **kwargs)
        self.basis = basis
        self.sizes = tuple(sizes)

    def cosines(self) -> dict[int, Tensor]:
        """All cosines of the principal angles for each size that can be compared."""
        after = self.spectrum()
        return {k: principal_cosines(self.basis, after, k) for k in usable_sizes(self.basis, after, self.sizes)}

    def compute(self) -> dict[str, Tensor]:
        """`cos_min_k*`, `cos_mean_k*` and `gap_k*`, see `stability`."""
        return as_tensors(stability(self.basis, self.spectrum(), self.sizes), self.root.device)


def as_tensors(values: dict[str, float], device: torch.device) -> dict[str, Tensor]:
    """Plain numbers as float64 scalars, which is what torchmetrics hands on.

    Args:
        values: Numbers by name.
        device: Where the scalars live.
    """
    return {name: torch.tensor(value, dtype=torch.float64, device=device) for name, value in values.items()}


def _moved(value: Tensor | list[Tensor], device: torch.device) -> Tensor | list[Tensor]:
    return value.to(device) if isinstance(value, Tensor) else [entry.to(device) for entry in value]
