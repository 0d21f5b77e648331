"""Two states of a model at several places: rates and norms of the change, side by side.

Knows rows by the names of places, and spectra of the same names. Refuses to know where the rows come from.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from lightning_edit.geometry.change_metrics import PerturbationNorm, RelativeChangeRate
from lightning_edit.geometry.relative_change import Aggregation
from lightning_edit.geometry.spectrum import Spectrum

RATES = ("mean", "median", "q90", "q95", "trimmed_mean", "max", "share_above_1", "top_share")
"""What is logged of the rates of an edit."""

BRIEF = ("median", "max", "share_above_1")
"""What is logged of the rates of a control."""


class Comparison:
    """What lies between two states of a model, at every place, as one process sees it: others are never waited for.

    Args:
        bases: Spectra of the unedited representations, by place.
        aggregation: How samples become one number.
    """

    def __init__(self, bases: Mapping[str, Spectrum], aggregation: Aggregation) -> None:
        self.aggregation = aggregation
        self._rates = {
            name: RelativeChangeRate(basis, aggregation, sync_on_compute=False) for name, basis in bases.items()
        }
        self._norms = {name: PerturbationNorm(sync_on_compute=False) for name in bases}

    def update(self, after: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> None:
        """Add the same samples in both states.

        Args:
            after: Rows (m, d) by place, after.
            before: Rows (m, d) by place, before.
        """
        for name, metric in self._rates.items():
            metric.update(after[name], before[name])
            self._norms[name].update(after[name], before[name])

    def rates(self) -> dict[str, Tensor]:
        """R_k of each place, on the CPU."""
        return {name: metric.rates().cpu() for name, metric in self._rates.items()}

    def mean_abs(self) -> dict[str, Tensor]:
        """Mean of |c_k| over the samples of each place, on the CPU."""
        return {name: metric.means()[0].cpu() for name, metric in self._rates.items()}

    def values(self, label: str, wanted: Sequence[str] = RATES) -> dict[str, float]:
        """Numbers by `<place>/<label>/<what>`.

        Args:
            label: What is compared, such as `total` or `random`.
            wanted: Which summaries of the rates.
        """
        found = {}
        for name, metric in self._rates.items():
            rates = metric.compute()
            for what in wanted:
                key = f"R_{self.aggregation}_{what}"
                found[f"{name}/{label}/{key}"] = float(rates[key])
            for what, value in self._norms[name].compute().items():
                found[f"{name}/{label}/norm_{what}"] = float(value)
        return found
