"""EMMET (Gupta et al., arXiv 2403.14236): many facts under equality constraints, with a little slack.

    S = W_b + (V - W_b K)(lambda_e I + K'QK)^-1 K'Q,    Q = (w M + mu I)^-1

With lambda_e = 0 every value is met exactly, and one request alone gives ROME with consistent keys.
"""

from typing import Any

from lightning_edit.editors.base import History
from lightning_edit.editors.covariance import CovarianceEditor
from lightning_edit.editors.presets import Preset
from lightning_edit.errors import EditError


class EMMET(CovarianceEditor):
    """ROME for a whole batch: values met exactly, or within a small slack.

    Args:
        noise: lambda_e, the slack; None takes the preset's, or 0.1. The published code leaves it out for a batch of one
            request: give 0 for that.
        history: `absorbed` is the paper's; `kept` solves for all active requests.
        options: See `CovarianceEditor` (`prior_weight` is the paper's `mom2_update_weight`, `ridge` its
            `update_norm_lambda`) and `ClosedFormEditor`.
    """

    single = True

    def __init__(self, noise: float | None = None, history: History = "absorbed", **options: Any) -> None:
        if noise is not None and not 0 <= noise < float("inf"):
            raise EditError(f"noise={noise}; expected a finite number, 0 or more.")
        self._given_noise = noise
        preset = options.get("preset")
        of_preset = preset.noise if isinstance(preset, Preset) else None  # so that what it excludes is said now
        self.noise = noise if noise is not None else 0.1 if of_preset is None else of_preset
        super().__init__(history=history, **options)

    def make_noise(self, preset: Preset) -> float:
        """lambda_e.

        Args:
            preset: Settings of the model.
        """
        return self.noise if self._given_noise is not None or preset.noise is None else preset.noise
