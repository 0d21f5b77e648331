r"""How a weight is deployed: from the solution S, through a restriction Rp, into what the model carries.

With W the deployed weight and S the ledger's solution:

    feedback       W_t = W_{t-1} + Rp(S_t - W_{t-1})     Algorithm 1 of Labyrinth, without its E matrix
    flush          feedback, then again without new edits until the pending error S - W stops shrinking
    project_total  W_t = W_b + Rp(S_t - W_b)             the total update keeps the restriction's promise
    none           W_t = W_{t-1} + Rp(D_t)               D_t read on the deployed weight: the paper's ablation

Knows matrices. Refuses to know what a parameter becomes when a weight is written into it: rounding is a restriction
too, and whoever writes measures it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from lightning_edit.algebra.restrictions import Restriction, identity
from lightning_edit.errors import LedgerError

Mode = Literal["feedback", "flush", "project_total", "none"]
Reference = Literal["current", "original"]


@dataclass(frozen=True)
class Deployment:
    """A restriction, and how it is applied.

    Args:
        mode: See the table of this module.
        restriction: Rp.
        reference: What a change is relative to: the weight it is added to, which is W_{t-1} (W_b for `project_total`),
            or the original weight W_b.
        flush_steps: Feedback steps of a flush at most.
        after: How many requests have to have been applied before the restriction is applied at all.
    """

    mode: Mode = "feedback"
    restriction: Restriction = identity
    reference: Reference = "current"
    flush_steps: int = 32
    after: int = 0

    def __post_init__(self) -> None:
        """Refuse unknown choices and negative counts."""
        for name, value, kind in (("mode", self.mode, Mode), ("reference", self.reference, Reference)):
            if value not in get_args(kind):
                expected = ", ".join(map(repr, get_args(kind)))
                raise LedgerError(f"The deployment's {name} is {value!r}; expected one of {expected}.")
        if self.flush_steps < 1 or self.after < 0:
            raise LedgerError(
                f"The deployment got flush_steps={self.flush_steps} and after={self.after}; expected at least 1 step, "
                "and a number of requests from 0."
            )

    @property
    def exact(self) -> bool:
        """Whether it writes S and nothing else."""
        return self.restriction is identity and self.mode != "none"


def next_weight(
    solution: Tensor,
    previous: Tensor,
    base: Tensor,
    restriction: Restriction = identity,
    mode: Mode = "feedback",
    increment: Tensor | None = None,
    reference: Reference = "current",
) -> Tensor:
    """The weight to deploy next, float64; what the parameter becomes of it is for the writer to measure.

    Args:
        solution: S (d, n).
        previous: W_{t-1} (d, n), what is deployed now.
        base: W_b (d, n).
        restriction: Rp.
        mode: How the restricted update is formed; see this module's table. One step of a flush is `feedback`.
        increment: D_t of mode "none" (`SiteLedger.increment`); it has no place in the others.
        reference: What the restriction is relative to; see `Deployment`.

    Raises:
        LedgerError: The mode is unknown, or "none" comes without an increment.
    """
    wanted, now, origin = (matrix.to(torch.float64) for matrix in (solution, previous, base))
    if mode == "none":
        if increment is None:
            raise LedgerError('Mode "none" needs the step read on the deployed weight; pass SiteLedger.increment(...).')
        start, update = now, increment.to(torch.float64)
    elif mode in ("feedback", "flush", "project_total"):
        if restriction is identity:
            return wanted  # bit for bit, where start + (wanted - start) would round
        start = origin if mode == "project_total" else now
        update = wanted - start
    else:
        raise LedgerError(f"The deployment mode is {mode!r}; expected 'feedback', 'flush', 'project_total' or 'none'.")
    return start + restriction(update, origin if reference == "original" else start)


@dataclass(frozen=True)
class Flushed:
    """What a flush came to.

    Args:
        weight: The deployed weight (d, n), float64.
        pending: ‖S - W‖ before the flush and after every step that was kept.
    """

    weight: Tensor
    pending: list[float]


def flush(
    solution: Tensor,
    previous: Tensor,
    base: Tensor,
    restriction: Restriction = identity,
    write: Callable[[Tensor], Tensor] = lambda weight: weight,
    max_steps: int = 32,
    reference: Reference = "current",
) -> Flushed:
    """Feedback steps without new edits, until the pending error ‖S - W‖ stops shrinking.

    Rounding never lets it reach 0, and a full flush undoes RECT's sparsity: the total update becomes dense.

    Args:
        solution: S (d, n).
        previous: What is deployed now (d, n).
        base: W_b (d, n).
        restriction: Rp.
        write: Writes a weight and returns what the parameter became; called once more with the kept weight when the
            last step did not help.
        max_steps: Give up after this many steps.
        reference: What the restriction is relative to; see `Deployment`.
    """
    wanted = solution.to(torch.float64)
    best = previous.to(torch.float64)
    pending = [float((wanted - best).norm())]
    for _ in range(max_steps):
        if pending[-1] == 0:
            break
        became = write(next_weight(wanted, best, base, restriction, reference=reference)).to(torch.float64)
        error = float((wanted - became).norm())
        if not error < pending[-1]:
            write(best)
            break
        best = became
        pending.append(error)
    return Flushed(best, pending)
