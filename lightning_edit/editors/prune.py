"""PRUNE (Ma et al., arXiv 2405.16821): hold down the singular values of an update that exceed the weight's largest.

    s -> c + log_b s - log_b c    for s > c,    c the largest singular value of the weight

on updates of MEMIT. Nothing is clipped as long as no singular value of the update exceeds c, and then PRUNE is MEMIT.
The paper restricts the total update once, against the original weight (`deployment="project_total"`); Labyrinth (arXiv
2605.26670) restricts every step and feeds back what that leaves out (Algorithm 1).
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from lightning_edit.algebra import Mode, Reference, Restriction, SpectrumLimit
from lightning_edit.editors.base import History
from lightning_edit.editors.covariance import CovarianceEditor
from lightning_edit.editors.rect import restricted_history
from lightning_edit.errors import EditError


@dataclass(frozen=True)
class AppliedTwice:
    """A restriction as a published baseline applies it: D + Rp(D), on top of a weight that holds D already.

    Args:
        restriction: Rp.
    """

    restriction: Restriction

    def __call__(self, update: Tensor, reference: Tensor) -> Tensor:
        """The update, and the restricted update once more."""
        return update + self.restriction(update, reference)


class PRUNE(CovarianceEditor):
    """MEMIT with an update whose largest singular values are damped, by step or on the total.

    Args:
        aligned: Keep all active requests and feed back what the restriction leaves out; false is the naive sequential
            mode.
        log_base: Base of the logarithm. The paper's code has 1.2, 1.5, 2 and e.
        variant: `log`, or `linear`, which halves what exceeds c.
        multiple: How many times the largest singular value c is. Published: 1; 10 lets through what 1 would clip.
        reference: Whose largest singular value is c: the `original` weight's, as in the paper, or the `current` one's.
        double_application: Reproduce the published baseline that adds the restricted total on top of the total,
            W_b + D + Rp(D). It did so once, after its last batch: say with `restrict_after` how many requests there
            are. Makes `deployment` `project_total`.
        history: Overrides `aligned`: `kept`, `latest` or `absorbed`.
        deployment: How errors are dealt with, see `ClosedFormEditor`; `project_total` restricts the total, everything
            else each step. None is `none` where batches are absorbed and `feedback` otherwise.
        options: See `CovarianceEditor` and `ClosedFormEditor`.
    """

    def __init__(
        self,
        aligned: bool = True,
        log_base: float = math.e,
        variant: Literal["log", "linear"] = "log",
        multiple: float = 1.0,
        reference: Reference = "original",
        double_application: bool = False,
        history: History | None = None,
        deployment: Mode | None = None,
        **options: Any,
    ) -> None:
        if "restriction" in options:
            raise EditError("PRUNE is a restriction already; expected no such option. Use MEMIT(restriction=...).")
        restriction: Restriction = SpectrumLimit(log_base, variant, multiple)
        if double_application:
            if deployment not in (None, "project_total"):
                raise EditError(
                    f"double_application=True with deployment={deployment!r}; expected 'project_total': it is the "
                    "total update that the published baseline applies twice."
                )
            restriction, deployment = AppliedTwice(restriction), "project_total"
        how = restricted_history(aligned, history, deployment)
        super().__init__(restriction=restriction, reference=reference, **how, **options)
