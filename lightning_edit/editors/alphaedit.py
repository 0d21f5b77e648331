"""AlphaEdit (Fang et al., arXiv 2410.02355): edits confined to the null space of ordinary text's keys.

    S = W_b + (V - W_b K)(I + K'QK)^-1 K'Q,    Q = P / L2

with P the projector onto the directions that the key moment M hardly uses. All active requests are kept.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from lightning_edit.algebra import KeyCovariance, NullSpacePrior, Prior
from lightning_edit.editors.base import ClosedFormEditor
from lightning_edit.editors.presets import Preset
from lightning_edit.errors import EditError

_WEIGHED = (
    "AlphaEdit's prior is P / L2, which does not weigh ordinary text; expected l2. For one that stays in the null "
    "space and weighs text inside it, use MEMIT with projected=True, which takes prior_weight and l2."
)


class AlphaEdit(ClosedFormEditor):
    """Least squares within the null space of what the model knows, spread over several blocks.

    There is no `prior_weight` (lambda): for M's metric inside the null space take `MEMIT(projected=True)`.

    Args:
        nullspace_threshold: Directions in which M is weaker than this count as unused (the paper's rule); None takes
            the preset's, unless an energy is given.
        nullspace_energy: Instead, the weakest directions count as unused, as many as together hold this share of
            trace(M); does not depend on the scale of keys or the number of tokens.
        l2: Strength of the penalty on the update; None takes the preset's.
        options: See `ClosedFormEditor`; no `penalty`, which needs a prior of full rank.
    """

    confined = True
    elsewhere: ClassVar[Mapping[str, str]] = MappingProxyType(
        dict.fromkeys(("prior_weight", "ridge", "projected"), _WEIGHED)
    )

    def __init__(
        self,
        nullspace_threshold: float | None = None,
        nullspace_energy: float | None = None,
        l2: float | None = None,
        **options: Any,
    ) -> None:
        if nullspace_threshold is not None and nullspace_energy is not None:
            raise EditError(
                f"nullspace_threshold={nullspace_threshold} and nullspace_energy={nullspace_energy} are two rules for "
                "one choice; expected one of them."
            )
        self.nullspace_threshold, self.nullspace_energy, self.l2 = nullspace_threshold, nullspace_energy, l2
        super().__init__(**options)

    def make_prior(self, statistics: KeyCovariance, preset: Preset) -> Prior:
        """P / L2.

        Args:
            statistics: Key moments of the layer.
            preset: Settings of the model.
        """
        threshold = self.nullspace_threshold
        if threshold is None and self.nullspace_energy is None:
            threshold = preset.nullspace_threshold
        l2 = preset.l2 if self.l2 is None else self.l2
        return NullSpacePrior(statistics.moment, threshold, self.nullspace_energy, l2)
