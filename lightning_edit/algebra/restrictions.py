r"""What stands between the solution S and the deployed weight: restrictions, and the modes that deploy through them.

With W the deployed weight, S the ledger's solution and Rp a restriction:

    feedback       W_t = W_{t-1} + Rp(S_t - W_{t-1})     Algorithm 1 of Labyrinth, without its E matrix
    project_total  W_t = W_b + Rp(S_t - W_b)             the total update keeps the restriction's promise
    none           W_t = W_{t-1} + Rp(D_t)               D_t read on the deployed weight: the paper's ablation

Knows matrices. Refuses to know what a parameter becomes when a weight is written into it: rounding is a restriction
too, and whoever writes measures it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from lightning_edit.errors import LedgerError

Mode = Literal["feedback", "project_total", "none"]


class Restriction(Protocol):
    """Turns the update one wants into the update one allows."""

    def __call__(self, update: Tensor, reference: Tensor) -> Tensor:
        """Restrict an update.

        Args:
            update: The wanted update (d, n), float64.
            reference: The weight it is relative to (d, n), float64.

        Returns:
            The allowed update (d, n).
        """
        ...


def identity(update: Tensor, reference: Tensor) -> Tensor:
    """Allow everything.

    Args:
        update: The wanted update (d, n).
        reference: Not looked at.
    """
    return update


@dataclass(frozen=True)
class TopKRelativeChange:
    """RECT: keep the entries that change most relative to the weight, zero the rest (Gu et al. 2024).

    An entry's relative change is |D| / (|W| + ε); ties with the smallest kept one are kept.

    Args:
        fraction: Share of the entries that is kept (published code: 0.2 or 0.4).
        epsilon: ε, keeps entries of weight 0 finite.
    """

    fraction: float = 0.2
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        """Refuse a share outside (0, 1] and an ε that divides by zero."""
        if not 0 < self.fraction <= 1 or not self.epsilon > 0:
            raise LedgerError(
                f"RECT got fraction={self.fraction} and epsilon={self.epsilon}; expected a fraction in (0, 1] and an "
                "epsilon > 0."
            )

    def __call__(self, update: Tensor, reference: Tensor) -> Tensor:
        """Keep the top entries of `update` relative to `reference`."""
        dropped = int(update.numel() * (1 - self.fraction))  # how many are smaller than the smallest kept one
        if dropped == 0:
            return update
        change = update.abs() / (reference.abs() + self.epsilon)
        threshold = change.flatten().kthvalue(dropped + 1).values
        return torch.where(change >= threshold, update, torch.zeros_like(update))


@dataclass(frozen=True)
class SpectrumLimit:
    r"""PRUNE: flatten singular values of the update above the largest one, c, of the reference (Ma et al. 2025).

    $$s \mapsto c + \log_b s - \log_b c \quad (\text{log}), \qquad s \mapsto (s + c) / 2 \quad (\text{linear}),
    \qquad s > c$$

    The formula is the published one. Just above c its slope is 1 / (c ln b): where c ln b < 1 it raises values there
    before it flattens them further up.

    Args:
        base: Base b > 1 of the logarithm (published: 1.2 and e).
        variant: "log" or "linear".
    """

    base: float = math.e
    variant: Literal["log", "linear"] = "log"

    def __post_init__(self) -> None:
        """Refuse a base that makes no growing logarithm and an unknown variant."""
        if not self.base > 1 or self.variant not in ("log", "linear"):
            raise LedgerError(
                f"PRUNE got base={self.base} and variant={self.variant!r}; expected a base > 1 and 'log' or 'linear'."
            )

    def __call__(self, update: Tensor, reference: Tensor) -> Tensor:
        """Flatten the spectrum of `update` above that of `reference`; the rest of it is not touched."""
        limit = torch.linalg.matrix_norm(reference, ord=2)
        if float(update.norm()) <= float(limit):  # the Frobenius norm bounds the largest singular value
            return update
        left, values, right = torch.linalg.svd(update, full_matrices=False)
        above = values > limit
        high = values[above]
        excess = (high - limit) / 2 if self.variant == "linear" else torch.log(high / limit) / math.log(self.base)
        removed: Tensor = (left[:, above] * (high - limit - excess)) @ right[above]
        return update - removed


def next_weight(
    solution: Tensor,
    previous: Tensor,
    base: Tensor,
    restriction: Restriction = identity,
    mode: Mode = "feedback",
    increment: Tensor | None = None,
    reference: Literal["start", "base"] = "start",
) -> Tensor:
    """The weight to deploy next, float64; what the parameter becomes of it is for the writer to measure.

    Args:
        solution: S (d, n).
        previous: W_{t-1} (d, n), what is deployed now.
        base: W_b (d, n).
        restriction: Rp.
        mode: How the restricted update is formed; see this module's table.
        increment: D_t of mode "none" (`SiteLedger.increment`); it has no place in the others.
        reference: What the restriction is relative to: the weight the update starts from (W_{t-1}, or W_b for
            `project_total`), or always the base.

    Raises:
        LedgerError: The mode is unknown, or "none" comes without an increment.
    """
    wanted, now, origin = (matrix.to(torch.float64) for matrix in (solution, previous, base))
    if mode == "none":
        if increment is None:
            raise LedgerError('Mode "none" needs the step read on the deployed weight; pass SiteLedger.increment(...).')
        start, update = now, increment.to(torch.float64)
    elif mode in ("feedback", "project_total"):
        if restriction is identity:
            return wanted  # bit for bit, where start + (wanted - start) would round
        start = now if mode == "feedback" else origin
        update = wanted - start
    else:
        raise LedgerError(f"The deployment mode is {mode!r}; expected 'feedback', 'project_total' or 'none'.")
    return start + restriction(update, origin if reference == "base" else start)


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
    """
    wanted = solution.to(torch.float64)
    best = previous.to(torch.float64)
    pending = [float((wanted - best).norm())]
    for _ in range(max_steps):
        if pending[-1] == 0:
            break
        became = write(next_weight(wanted, best, base, restriction)).to(torch.float64)
        error = float((wanted - became).norm())
        if not error < pending[-1]:
            write(best)
            break
        best = became
        pending.append(error)
    return Flushed(best, pending)
