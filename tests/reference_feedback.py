"""Algorithm 1 of Labyrinth where the prior may be singular: the pending error is carried, not its product with C.

As independent and slow as `reference.py`: dense normal equations in extended precision, in coordinates of the prior's
range where it has a smaller one.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from lightning_edit.algebra import Restriction, SpectrumLimit, TopKRelativeChange
from tests.reference import Array, long, prune, rect, solve, tensor

# How far feedback may be from its reference, relative to the update, by the condition of M. K'M⁻¹ carries M's condition
# times 1.1e-16, and with few columns that is all there is of the update: five of sixty at 1e12 are found to 1e-6 (and
# known to no better than 1e-4, since M itself is rounded), twenty to 2e-9. Measured, from the first five on: 1e-13,
# 3e-10 and 1.3e-6; the bounds leave a margin of fifteen, or more.
ROUNDING = {1e4: 1e-11, 1e8: 1e-8, 1e12: 2e-5}
PLAIN: dict[str, Callable[[Array, Array], Any]] = {
    "rect": lambda update, weight: rect(update, weight, 0.3),
    "prune": lambda update, weight: prune(update, 0.05 * weight).numpy(),
}
RESTRICTIONS: dict[str, tuple[Restriction, Callable[[Array, Array], Any]]] = {
    "rect": (TopKRelativeChange(0.3), PLAIN["rect"]),
    "prune": (SpectrumLimit(variant="linear", multiple=0.05), PLAIN["prune"]),
}


def error_feedback(
    base: Any,
    penalty: Any,
    batches: list[tuple[Any, Any]],
    restrict: Callable[[Array, Array], Any],
    basis: Any = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noise 1: D_t = (R_t + F K_t) K_tᵀ C_t⁻¹ - F, with F what the last step's restriction has added to its update.

    R_t = V_t - W K_t is read on the deployed weight. Of F, the part outside of the prior's range has an infinite price
    in C and so no place in E = F C; it is taken back like the rest.

    Returns:
        The deployed weight, E = F C as a matrix on all of R^n, and F.
    """
    W, A = long(base), long(penalty)
    B = np.eye(len(A), dtype=np.longdouble) if basis is None else long(basis)  # (n, r)
    C, F, E = B.T @ A @ B, np.zeros_like(W), np.zeros_like(W)
    for K, V in ((long(k), long(v)) for k, v in batches):
        inner = B.T @ K
        C = C + inner @ inner.T
        D = solve(C, inner @ (V - W @ K + F @ K).T).T @ B.T - F
        allowed = long(restrict(D, W))
        F, W = allowed - D, W + allowed
        E = F @ B @ C @ B.T
    return tensor(W), tensor(E), tensor(F)
