"""Editors whose prior is the covariance of keys: MEMIT, ROME, EMMET, PMET and what is built on them.

    Q = (w M + mu I)^-1,   or confined to the null space,   Q = P (w P M P + L2 I)^+ P

The second is the general form for which sequential edits equal the one-time edit (Labyrinth, arXiv 2605.26670, Prop.
3.2, any P and lambda): P = I and L2 = 0 give MEMIT, w = 0 gives AlphaEdit. This file knows how a prior is chosen from
options and preset; what else an editor declares stands in its own file.
"""

from typing import Any

from lightning_edit.algebra import CovariancePrior, KeyCovariance, Prior, ProjectedPrior, RidgePrior
from lightning_edit.editors.base import ClosedFormEditor
from lightning_edit.editors.presets import Preset
from lightning_edit.errors import EditError


class CovarianceEditor(ClosedFormEditor):
    """A closed-form editor for which ordinary text counts by its keys' second moment M.

    Args:
        prior_weight: w, how much ordinary text counts against edits; None takes the preset's, or a quarter of the
            inner width.
        ridge: mu, how much every direction counts besides; changes the problem, and is the way to edit with an M of
            less than full rank. None takes the preset's, which is 0 wherever an editor has not published another.
        projected: Confine the update to the null space of M, and keep M's metric inside it.
        nullspace_threshold: With `projected`, directions in which M is weaker than this count as unused; None takes the
            preset's, unless an energy is given.
        nullspace_energy: Instead, the weakest directions count as unused, as many as together hold this share of
            trace(M).
        l2: With `projected`, strength of the penalty on the update beside that of M; None takes the preset's.
        options: See `ClosedFormEditor`; no `penalty` with `projected`.
    """

    mom2_adjustment: bool | None = True  # false is ROME's Q = I; None takes the preset's, see `ROME`

    def __init__(
        self,
        prior_weight: float | None = None,
        ridge: float | None = None,
        projected: bool = False,
        nullspace_threshold: float | None = None,
        nullspace_energy: float | None = None,
        l2: float | None = None,
        **options: Any,
    ) -> None:
        null = {"nullspace_threshold": nullspace_threshold, "nullspace_energy": nullspace_energy, "l2": l2}
        given = [f"{name}={value}" for name, value in null.items() if value is not None]
        if given and not projected:
            raise EditError(f"{', '.join(given)} without a projection; expected projected=True beside it.")
        if projected and ridge:
            raise EditError(f"ridge={ridge} with projected=True; expected l2, which is the ridge of the null space.")
        if nullspace_threshold is not None and nullspace_energy is not None:
            raise EditError("nullspace_threshold and nullspace_energy are two rules for one choice; expected one.")
        self.prior_weight, self.ridge, self.projected = prior_weight, ridge, projected
        self.confined = projected
        self.nullspace_threshold, self.nullspace_energy, self.l2 = nullspace_threshold, nullspace_energy, l2
        super().__init__(**options)

    def make_prior(self, statistics: KeyCovariance, preset: Preset) -> Prior:
        """(w M + mu I)^-1, or P (w P M P + L2 I)^+ P, or I without the covariance.

        Args:
            statistics: Key moments of the layer.
            preset: Settings of the model.
        """
        weight = self.prior_weight if self.prior_weight is not None else preset.prior_weight
        weight = weight if weight is not None else statistics.size / 4
        if self.projected:
            threshold, l2 = self.nullspace_threshold, preset.l2 if self.l2 is None else self.l2
            if threshold is None and self.nullspace_energy is None:
                threshold = preset.nullspace_threshold
            return ProjectedPrior(statistics.moment, weight, threshold, self.nullspace_energy, l2)
        if not (preset.mom2_adjustment if self.mom2_adjustment is None else self.mom2_adjustment):
            return RidgePrior(statistics.moment, 0.0, 1.0)
        ridge = preset.ridge if self.ridge is None else self.ridge
        if ridge:
            return RidgePrior(statistics.moment, weight, ridge)
        return CovariancePrior(statistics.moment, weight)
