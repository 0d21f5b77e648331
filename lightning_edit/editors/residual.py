"""What each edited layer is asked to make up for: its share of what the target still lacks.

The lowest layer takes a part of the whole residual, the next one a part of what is then missing, the last one all that
is left. This file knows the published ways of sharing out; it reads no model.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from lightning_edit.algebra import Prior
from lightning_edit.errors import EditError

Spreading = Literal["even", "sqrt"]


@dataclass(frozen=True, slots=True)
class Sharing:
    """How a residual is shared out.

    Args:
        spreading: With r layers left, this one included, `even` takes R / r (MEMIT, arXiv 2210.07229,
            algorithm 1), `sqrt` takes R / sqrt(r) (PMET, arXiv 2308.08742), which asks more of the lower layers.
        original_keys: Reproduce the key mismatch of ROME's published code, see `mismatch`.
    """

    spreading: Spreading = "even"
    original_keys: bool = False

    def part(self, residual: Tensor, left: int) -> Tensor:
        """One layer's share of a residual.

        Args:
            residual: What the target still lacks (d, m).
            left: Layers that are left, this one included.
        """
        return residual / (left if self.spreading == "even" else left**0.5)


def mismatch(prior: Prior, keys: Tensor, bare: Tensor) -> Tensor:
    """By how much ROME's published code stretches each residual.

    The code takes the update's direction from the key k averaged over contexts, and its length from the key k_0 of the
    bare prompt: `R (Qk)' / (k_0'Qk)`. That is the consistent update for k, `R (Qk)' / (k'Qk)`, stretched by
    `k'Qk / k_0'Qk`; where the two keys are nearly at right angles in the metric of Q it has no bound, which is how a
    single edit ruins a model (Gupta et al., arXiv 2403.07175).

    Args:
        prior: Q of the layer.
        keys: Averaged keys (n, m).
        bare: Keys of the bare prompts (n, m).

    Returns:
        Factors (m,).

    Raises:
        EditError: A factor is not finite.
    """
    half, half_bare = prior.half(keys), prior.half(bare.to(keys.device))
    factors = (half * half).sum(0) / (half * half_bare).sum(0)
    if not bool(factors.isfinite().all()):
        raise EditError(
            "the key of a bare prompt and its average over contexts are at right angles in the prior's metric, so the "
            "published update has no length; expected keys that agree. Use original_keys=False."
        )
    return factors
