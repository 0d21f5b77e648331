"""What an edit does to representations, as torchmetrics: norms, relative change rates, and the first order's error.

Every update takes the same samples in two states of the model. Knows differences and a spectrum; reads no model.
"""

from typing import Any

import torch
from torch import Tensor

from lightning_edit.errors import GeometryError
from lightning_edit.geometry.first_order import prediction_summary, prediction_sums
from lightning_edit.geometry.metrics import GeometryMetric, as_tensors
from lightning_edit.geometry.perturbation import empty_moments, merge_moments, moments_of, norm_summary
from lightning_edit.geometry.relative_change import Aggregation, check_aggregation, components, rates, summarise
from lightning_edit.geometry.spectrum import Spectrum


class PerturbationNorm(GeometryMetric):
    """Mean, standard deviation, smallest and largest norm of changes.

    Args:
        kwargs: Arguments of every torchmetrics metric.

    Example:
        >>> metric = PerturbationNorm()
        >>> metric.update(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2))
        >>> metric.compute()["mean"].item()
        5.0
    """

    higher_is_better = False
    moments: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("moments", empty_moments(), dist_reduce_fx=merge_moments)

    def update(self, after: Tensor, before: Tensor) -> None:
        """Add samples, the same ones in two states of the model.

        Args:
            after: Representations after (m, d).
            before: Representations before (m, d).
        """
        norms = difference(after, before).norm(dim=-1).to(self.moments.device)
        self.moments = merge_moments(torch.stack([self.moments, moments_of(norms)]))

    def compute(self) -> dict[str, Tensor]:
        """`mean`, `std`, `min` and `max`."""
        return as_tensors(norm_summary(self.moments), self.moments.device)


class RelativeChangeRate(GeometryMetric):
    """Relative change rate R_k of each principal direction, and what is said of all of them.

    Args:
        basis: Spectrum of the representations before.
        aggregation: How samples become one number: `mean_abs` as the public code does, `rms` as in Eq. 10. It is part
            of the names that `compute` gives.
        trim: Share of rates that the trimmed mean leaves out at each end.
        kwargs: Arguments of every torchmetrics metric.
    """

    higher_is_better = False
    absolute: Tensor
    square: Tensor
    samples: Tensor

    def __init__(
        self, basis: Spectrum, aggregation: Aggregation = "mean_abs", trim: float = 0.1, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        check_aggregation(aggregation)
        if basis.rank == 0:
            raise GeometryError(
                "The spectrum has no direction above the floor; expected at least two distinct samples."
            )
        self.basis, self.aggregation, self.trim = basis, aggregation, trim
        zeros = torch.zeros(basis.rank, dtype=torch.float64, device=basis.sigma.device)
        self.add_state("absolute", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("square", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("samples", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, after: Tensor, before: Tensor) -> None:
        """Add samples, the same ones in two states of the model.

        Args:
            after: Representations after (m, d).
            before: Representations before (m, d).
        """
        found = components(difference(after, before), self.basis).to(self.absolute.device)
        self.absolute = self.absolute + found.abs().sum(dim=0)
        self.square = self.square + (found**2).sum(dim=0)
        self.samples = self.samples + len(found)

    def rates(self) -> Tensor:
        """R_k of each direction above the floor (rank,), on this process."""
        return rates(*self.means(), self.basis, self.aggregation)

    def means(self) -> tuple[Tensor, Tensor]:
        """Mean of |c_k| and of c_k² over the samples, each (rank,)."""
        if self.samples == 0:
            raise GeometryError("No change has been seen; expected at least one sample. Call update() first.")
        return self.absolute / self.samples, self.square / self.samples

    def compute(self) -> dict[str, Tensor]:
        """`R_<aggregation>_mean`, `..._median` and so on, see `summarise`."""
        found = summarise(self.rates(), self.trim)
        return as_tensors(
            {f"R_{self.aggregation}_{name}": value for name, value in found.items()}, self.absolute.device
        )


class FirstOrderError(GeometryMetric):
    """How well the first order predicts the change, see `prediction_summary`.

    Args:
        kwargs: Arguments of every torchmetrics metric.
    """

    higher_is_better = False
    sums: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("sums", torch.zeros(5, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, measured: Tensor, predicted: Tensor) -> None:
        """Add samples.

        Args:
            measured: What the edit changed (m, d).
            predicted: What its first order says (m, d).
        """
        self.sums = self.sums + prediction_sums(measured, predicted).to(self.sums.device)

    def compute(self) -> dict[str, Tensor]:
        """`error`, `cosine` and `ratio`."""
        return as_tensors(prediction_summary(self.sums), self.sums.device)


def difference(after: Tensor, before: Tensor) -> Tensor:
    """Δh in float64 (m, d): the subtraction must not round a second time.

    Args:
        after: Representations after.
        before: Representations before, the same samples.
    """
    if after.shape != before.shape or after.dtype != before.dtype:
        raise GeometryError(
            f"Found representations of shape {tuple(after.shape)} and {after.dtype} after, {tuple(before.shape)} and "
            f"{before.dtype} before; expected the same samples in the same precision on both sides."
        )
    return after.detach().to(torch.float64) - before.detach().to(after.device, torch.float64)
