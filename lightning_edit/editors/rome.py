"""ROME (Meng et al., arXiv 2202.05262): one fact, met exactly by an update of rank one.

    S = W_b + (v - W_b k) (M^-1 k)' / (k' M^-1 k),    which is the one formula with Q = M^-1 and s = 0

Several requests are met at once, `(V - W_b K)(K' M^-1 K)^-1 K' M^-1`; hand them over one by one for the paper's
sequence. The key is the mean over contexts, on both sides of the fraction (r-ROME, Gupta et al., arXiv 2403.07175).
"""

from typing import Any

from lightning_edit.editors.base import History
from lightning_edit.editors.covariance import CovarianceEditor
from lightning_edit.editors.residual import Sharing


class ROME(CovarianceEditor):
    """Meets each value exactly, by an update of rank one at the subject's last token in one block.

    The target is the FFN's output, as in the paper, so `clamp` is relative to its length. With several layers it is the
    block's output, where what lower layers write counts too.

    Args:
        original_keys: Reproduce the published code's mismatch: the update's direction from the averaged key, its length
            from the bare prompt's. This is what makes single edits ruin a model.
        mom2_adjustment: Use the covariance, as the paper does; false puts Q = I. None takes the preset's: true for the
            models of the paper and those without a preset, false in the only settings that were published for Llama,
            Mistral and Qwen. Of no effect with `projected`.
        history: `absorbed` is the paper's; `kept` meets all active requests exactly, which needs independent keys. Only
            with `absorbed` is there a `deployment="none"`, and only with it `conflicts="append"`: where values are met
            exactly, such a step cannot take a column out, and one key cannot give two values.
        layers: Layers to edit; None takes the preset's, and of several the last.
        prior_weight: w. Only its ratio to `ridge` or `l2` matters here, since values are met exactly anyhow.
        bare_weight: As for `ClosedFormEditor`; here the default is the mean over all texts.
        options: See `CovarianceEditor` and `ClosedFormEditor`.
    """

    noise = 0.0
    single = True

    def __init__(
        self,
        original_keys: bool = False,
        mom2_adjustment: bool | None = None,
        history: History = "absorbed",
        layers: list[int] | None = None,
        prior_weight: float = 1.0,
        bare_weight: float | None = None,
        **options: Any,
    ) -> None:
        self.mom2_adjustment = mom2_adjustment
        self.sharing = Sharing(original_keys=original_keys)
        self.places = ("ffn",) if layers is None or len(layers) == 1 else ("block",)
        super().__init__(history=history, layers=layers, prior_weight=prior_weight, bare_weight=bare_weight, **options)
