"""MEMIT with an L1 penalty on the update: sparse edits in any number of steps (Labyrinth, arXiv 2605.26670, Prop. 3.4).

    S minimises  1/2 ||V - S K||^2 + 1/2 tr((S - W_b) lambda M (S - W_b)') + w sum |S - W_b|

over all active requests, whatever their order: the example of a convex penalty without a closed form. RECT's updates
are sparse one by one and dense in sum; this sum is sparse. The price is an iteration where others solve once: some
fifty products with an n x n factor, which `docs/mathematics.md` has figures of.
"""

from typing import Any

from lightning_edit.algebra import L1Penalty
from lightning_edit.editors.memit import MEMIT
from lightning_edit.errors import EditError


class L1(MEMIT):
    """MEMIT with an L1 penalty on the update.

    Args:
        l1: w, the price of an entry's size; from max |(V - W_b K) K'| on nothing is edited at all.
        tolerance: How small the duality gap has to be, relative to half of ||V - W_b K||^2. Edited outputs are then
            within the root of it, relative to ||V - W_b K||: within a thousandth by default.
        max_steps: Give up an edit after this many steps of the solver.
        options: See `MEMIT`, `CovarianceEditor` and `ClosedFormEditor`; no `deployment="none"`, since a penalty always
            looks at the whole update, and no `projected`, since it needs a prior of full rank.
    """

    def __init__(
        self,
        l1: float = 0.01,
        tolerance: float = 1e-6,
        max_steps: int = 5_000,
        **options: Any,
    ) -> None:
        if "penalty" in options:
            raise EditError("L1 is a penalty already; expected no such option. Use MEMIT(penalty=...).")
        penalty = L1Penalty(weight=l1, tolerance=tolerance, max_steps=max_steps)
        super().__init__(penalty=penalty, **options)
