"""What a whole sequence of edits does, as torchmetrics: growth with the number of edits, and rank correlation.

Every update is one step of the sequence. A step that is given again replaces the earlier one, so ranks that have all
seen the same steps agree after they are gathered. Knows rates and metrics of steps; reads no model.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lightning_edit.errors import GeometryError
from lightning_edit.geometry.accumulation import LinearLaw, linear_law
from lightning_edit.geometry.correlation import Correlation, correlate
from lightning_edit.geometry.metrics import GeometryMetric, as_tensors
from lightning_edit.geometry.relative_change import across_sites, summarise

Summary = Literal["median", "q90", "q95", "trimmed_mean"]
"""What Appendix B.6 says of the rates of one layer."""

Across = Literal["mean", "max", "median"]
"""How Appendix B.6 brings the layers of a step together."""


class Accumulation(GeometryMetric):
    """Growth of R_k with the number of edits against the linear law (*Revisiting*, Eq. 17), with the basis' drift.

    Args:
        directions: Number of directions that have a rate.
        kwargs: Arguments of every torchmetrics metric.

    Example:
        >>> metric = Accumulation(directions=2)
        >>> for count in (1, 2, 4):
        ...     metric.update(count, torch.tensor([0.5, 2.0]) * count, drift=0.1 * count)
        >>> {name: round(value.item(), 4) for name, value in metric.compute().items()}
        {'law_ratio': 1.0, 'growth_exponent': 1.0, 'basis_drift': 0.4}
    """

    higher_is_better = None
    rows: list[Tensor]

    def __init__(self, directions: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.directions = directions
        self.add_state("rows", [], dist_reduce_fx="cat")

    def update(self, step: float, rates: Tensor, drift: float = float("nan")) -> None:
        """Add a step.

        Args:
            step: Number of edits so far.
            rates: R_k of the total change in the basis of the first state (r,).
            drift: How far the basis itself has turned, 1 minus the smallest or mean cosine.
        """
        if rates.shape != (self.directions,):
            raise GeometryError(f"Found rates of shape {tuple(rates.shape)}; expected ({self.directions},).")
        head = torch.tensor([step, drift], dtype=torch.float64, device=rates.device)
        self.rows.append(torch.cat([head, rates.detach().to(torch.float64)])[None])

    def law(self) -> LinearLaw:
        """Rates, ratios and exponents of all directions."""
        rows = last_of_each(self.rows)
        return linear_law(rows[:, 0].tolist(), rows[:, 2:])

    def compute(self) -> dict[str, Tensor]:
        """`law_ratio` and `growth_exponent` (medians over directions), and `basis_drift` at the last step."""
        values = {**self.law().summary(), "basis_drift": float(last_of_each(self.rows)[-1, 1])}
        return as_tensors(values, self.device)


class AmplificationCorrelation(GeometryMetric):
    """Spearman's correlation of step-level summaries of R_k with editing metrics (*Revisiting*, Tables 2, 25 to 28).

    Args:
        metrics: Names of the editing metrics.
        kwargs: Arguments of every torchmetrics metric.

    Example:
        >>> metric = AmplificationCorrelation(["locality"])
        >>> for step, locality in enumerate([0.9, 0.7, 0.8, 0.4]):
        ...     metric.update(step, [torch.tensor([1.0, 2.0]) * step, torch.ones(1)], {"locality": locality})
        >>> metric.correlations()["median_mean"]["locality"].rho.__round__(4)
        -0.8
    """

    higher_is_better = None
    rows: list[Tensor]

    def __init__(self, metrics: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.names = tuple(metrics)
        self.add_state("rows", [], dist_reduce_fx="cat")

    @property
    def summaries(self) -> list[tuple[Summary, Across]]:
        """Every summary of a layer with every way to bring layers together."""
        return [(summary, across) for summary in get_args(Summary) for across in get_args(Across)]

    def update(self, step: float, rates: Sequence[Tensor], metrics: Mapping[str, float]) -> None:
        """Add a step.

        Args:
            step: Number of edits so far.
            rates: R_k of each edited layer.
            metrics: Every editing metric at this step.
        """
        missing = [name for name in self.names if name not in metrics]
        if missing or not rates:
            raise GeometryError(
                f"Found {len(rates)} layers and no value of {missing}; expected at least one layer, and every metric."
            )
        layers = [summarise(values) for values in rates]
        made = [across_sites([layer[summary] for layer in layers], how) for summary, how in self.summaries]
        row = [step, *made, *(float(metrics[name]) for name in self.names)]
        self.rows.append(torch.tensor([row], dtype=torch.float64, device=self.device))

    def correlations(self) -> dict[str, dict[str, Correlation]]:
        """Rho and p-value by summary (`median_mean`: median over directions, mean over layers) and metric."""
        rows = last_of_each(self.rows)
        first = 1 + len(self.summaries)
        metrics = {name: rows[:, first + place].tolist() for place, name in enumerate(self.names)}
        return {
            f"{summary}_{across}": correlate(rows[:, 1 + place].tolist(), metrics)
            for place, (summary, across) in enumerate(self.summaries)
        }

    def compute(self) -> dict[str, Tensor]:
        """`<summary>_<across>/<metric>` is rho, and the same with `/p_value` behind it."""
        values = {}
        for summary, found in self.correlations().items():
            for name, correlation in found.items():
                values[f"{summary}/{name}"] = correlation.rho
                values[f"{summary}/{name}/p_value"] = correlation.p_value
        return as_tensors(values, self.device)


def last_of_each(rows: list[Tensor] | Tensor) -> Tensor:
    """Rows ordered by their first entry, the later one where two agree in it.

    Args:
        rows: Rows (1, m) in the order in which they came, or all of them in one tensor.
    """
    known = rows if isinstance(rows, Tensor) else torch.cat(rows) if rows else torch.zeros(0, 1, dtype=torch.float64)
    if len(known) == 0:
        raise GeometryError("No step has been seen; expected at least one. Call update() first.")
    latest = {float(row[0]): row for row in known}
    return torch.stack([latest[step] for step in sorted(latest)])
