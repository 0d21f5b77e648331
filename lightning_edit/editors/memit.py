"""MEMIT (Meng et al., arXiv 2210.07229): mass editing with the keys' covariance as prior.

    S = W_b + (V - W_b K)(I + K'QK)^-1 K'Q,    Q = (lambda M)^-1

Aligned, the ledger keeps every active request, and sequential edits equal the one-time edit (Labyrinth, Prop. 3.2);
naive, each batch is absorbed into the weight and forgotten, which is what the published code does in sequence.
"""

from typing import Any

from lightning_edit.algebra import CovariancePrior, KeyCovariance, Prior
from lightning_edit.editors.base import ClosedFormEditor, History
from lightning_edit.editors.presets import Preset
from lightning_edit.errors import EditError


class MEMIT(ClosedFormEditor):
    """MEMIT, aligned or naive.

    Args:
        aligned: Keep all active requests in the solution; false is the naive sequential mode.
        prior_weight: lambda, how much ordinary text counts against edits; None takes the preset's, or a quarter of
            the inner width.
        history: Overrides `aligned`: `kept`, `latest` or `absorbed`.
        options: See `ClosedFormEditor`.
    """

    def __init__(
        self,
        aligned: bool = True,
        prior_weight: float | None = None,
        history: History | None = None,
        **options: Any,
    ) -> None:
        if history == "kept" and not aligned:
            raise EditError(f"aligned=False and history={history!r} contradict each other; give one of them.")
        self.prior_weight = prior_weight
        super().__init__(history=history or ("kept" if aligned else "absorbed"), **options)

    def make_prior(self, statistics: KeyCovariance, preset: Preset) -> Prior:
        """(lambda M)^-1.

        Args:
            statistics: Key moments of the layer.
            preset: Settings of the model.
        """
        weight = self.prior_weight if self.prior_weight is not None else preset.prior_weight
        return CovariancePrior(statistics.moment, weight if weight is not None else statistics.size / 4)
