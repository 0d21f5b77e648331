"""Memorize-the-Latest (Labyrinth, arXiv 2605.26670): remember the newest batch only, in two ways.

`simplified` solves AlphaEdit's equations for the newest batch on the weight that the last batch left: null-space
projection without alignment, the paper's counterexample, which collapses. `full` solves the whole normal equations:
the newest batch on the original weight, which forgets older batches but keeps the model.
"""

from typing import Any, Literal

from lightning_edit.algebra import CovariancePrior, KeyCovariance, NullSpacePrior, Prior, ProjectedPrior
from lightning_edit.editors.base import ClosedFormEditor
from lightning_edit.editors.presets import Preset
from lightning_edit.errors import EditError

Form = Literal["simplified", "full"]


class MemorizeLatest(ClosedFormEditor):
    """The counterexample: remembers the newest batch only.

    Args:
        form: `simplified` (Q = P / L2, batches are absorbed) or `full` (Q = (lambda M)^-1 on the original weight, or
            P (lambda P M P + L2)^+ P with `projected`).
        projected: Confine the full form to the null space too.
        prior_weight: lambda of the full form; None takes the preset's, or a quarter of the inner width.
        nullspace_threshold: As for `AlphaEdit`.
        nullspace_energy: As for `AlphaEdit`.
        l2: As for `AlphaEdit`.
        options: See `ClosedFormEditor`; no `history`, which the form decides.
    """

    def __init__(
        self,
        form: Form = "full",
        projected: bool = False,
        prior_weight: float | None = None,
        nullspace_threshold: float | None = None,
        nullspace_energy: float | None = None,
        l2: float | None = None,
        **options: Any,
    ) -> None:
        if form not in ("simplified", "full"):
            raise EditError(f"form={form!r}; expected 'simplified' or 'full'.")
        if "history" in options:
            raise EditError(f"history={options['history']!r}: here the form decides; expected no such option.")
        if nullspace_threshold is not None and nullspace_energy is not None:
            raise EditError("nullspace_threshold and nullspace_energy are two rules for one choice; expected one.")
        self.form, self.projected, self.prior_weight = form, projected, prior_weight
        self.confined = projected or form == "simplified"
        self.nullspace_threshold, self.nullspace_energy, self.l2 = nullspace_threshold, nullspace_energy, l2
        super().__init__(history="absorbed" if form == "simplified" else "latest", **options)

    def make_prior(self, statistics: KeyCovariance, preset: Preset) -> Prior:
        """The prior of the chosen form.

        Args:
            statistics: Key moments of the layer.
            preset: Settings of the model.
        """
        threshold = self.nullspace_threshold
        if threshold is None and self.nullspace_energy is None:
            threshold = preset.nullspace_threshold
        l2 = preset.l2 if self.l2 is None else self.l2
        weight = self.prior_weight if self.prior_weight is not None else preset.prior_weight
        weight = weight if weight is not None else statistics.size / 4
        if self.form == "simplified":
            return NullSpacePrior(statistics.moment, threshold, self.nullspace_energy, l2)
        if self.projected:
            return ProjectedPrior(statistics.moment, weight, threshold, self.nullspace_energy, l2)
        return CovariancePrior(statistics.moment, weight)
