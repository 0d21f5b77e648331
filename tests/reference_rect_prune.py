"""The executable specification of naive restricted editing: every batch is solved alone and forgotten.

Knows numpy only, like `reference.py`, whose solver it uses.
"""

from collections.abc import Callable
from typing import Any

import torch

from tests.reference import Array, long, solve, tensor


def naive(
    base: Any, penalty: Any, batches: list[tuple[Any, Any]], restrict: Callable[[Array, Array], Array]
) -> torch.Tensor:
    """W_t = W_{t-1} + Rp(D_t), D_t = (V_t - W_{t-1} K_t) K_tᵀ (A + K_t K_tᵀ)⁻¹: no history, no compensation."""
    W, A = long(base), long(penalty)
    for K, V in ((long(k), long(v)) for k, v in batches):
        W = W + restrict(solve(A + K @ K.T, K @ (V - W @ K).T).T, W)
    return tensor(W)


def everything(update: Array, weight: Array) -> Array:
    """The restriction that allows everything."""
    return update
