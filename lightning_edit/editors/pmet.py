"""PMET (Li et al., arXiv 2308.08742): MEMIT whose targets are the FFN's own.

What attention adds at the subject's last token is left free while the FFN's output is optimised, so that the FFN need
not learn what attention would have to say; the attention's vector is then thrown away and only FFNs are written. Layers
share out the residual by square roots, `R / sqrt(layers left)`. Prior and solution are MEMIT's.
"""

from lightning_edit.editors.memit import MEMIT
from lightning_edit.editors.residual import Sharing


class PMET(MEMIT):
    """MEMIT whose targets share the work with the attention's output; aligned or naive.

    The target is the FFN's output, so `clamp` is relative to its length, and to that of the attention's output for the
    other vector. A target's loss is that with both vectors in place: the edited model, which has only one of them, is
    expected to meet its requests somewhat worse.
    """

    places = ("ffn", "attention")
    nll_after = 0.1
    sharing = Sharing("sqrt")
