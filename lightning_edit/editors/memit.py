"""MEMIT (Meng et al., arXiv 2210.07229): mass editing with the keys' covariance as prior.

    S = W_b + (V - W_b K)(I + K'QK)^-1 K'Q,    Q = (lambda M)^-1

Aligned, the ledger keeps every active request, and sequential edits equal the one-time edit (Labyrinth, Prop. 3.2);
naive, each batch is absorbed into the weight and forgotten, which is what the published code does in sequence.
"""

from typing import Any

from lightning_edit.editors.base import History
from lightning_edit.editors.covariance import CovarianceEditor
from lightning_edit.errors import EditError


class MEMIT(CovarianceEditor):
    """Least squares under a prior of key statistics, spread over several blocks; aligned or naive.

    Args:
        aligned: Keep all active requests in the solution; false is the naive sequential mode.
        history: Overrides `aligned`: `kept`, `latest` or `absorbed`.
        options: See `CovarianceEditor` and `ClosedFormEditor`.
    """

    def __init__(self, aligned: bool = True, history: History | None = None, **options: Any) -> None:
        if history == "kept" and not aligned:
            raise EditError(f"aligned=False and history={history!r} contradict each other; give one of them.")
        super().__init__(history=history or ("kept" if aligned else "absorbed"), **options)
