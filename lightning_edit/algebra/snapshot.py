"""Everything a ledger is at one moment, and the pure functions that lead from one moment to the next.

Knows columns, the base weight, the prior and which form the equations are in. Refuses to change anything: a transition
returns a new `Snapshot` or raises, and its tensors are shared with the old one where they are the same.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_edit.algebra.gram import GramForm
from lightning_edit.algebra.primal import PrimalForm
from lightning_edit.algebra.prior import Prior
from lightning_edit.errors import LedgerError

Form = GramForm | PrimalForm


@dataclass(frozen=True, slots=True)
class Solved:
    """A solution that is no closed form of the columns, and what it is the solution of.

    Args:
        update: S - W_b (d, n), float64.
        gap: Its duality gap.
        steps: Steps it took.
        problem: Base weight, prior, keys and values it was found for; None where they are not known any more.
    """

    update: Tensor
    gap: float
    steps: int
    problem: tuple[Tensor, Prior, Tensor, Tensor] | None = None

    @classmethod
    def of(cls, state: "Snapshot", update: Tensor, gap: float, steps: int) -> "Solved":
        """The solution of a ledger.

        Args:
            state: The ledger.
            update: S - W_b (d, n).
            gap: Its duality gap.
            steps: Steps it took.
        """
        return cls(update, gap, steps, (state.base, state.prior, state.keys, state.values))

    def solves(self, state: "Snapshot") -> bool:
        """Whether it is the solution of a ledger; transitions keep the tensors that they do not change.

        Args:
            state: The ledger.
        """
        now = (state.base, state.prior, state.keys, state.values)
        return self.problem is not None and all(a is b for a, b in zip(self.problem, now, strict=True))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A ledger at one moment.

    Args:
        base: W_b (d, n), float32 or float64.
        prior: Q.
        noise: s.
        ids: Ids of the N active columns.
        keys: K (n, N), float64.
        values: V (d, N), float64.
        form: The factored equations.
        solved: The last solution under a penalty, where there is one.
    """

    base: Tensor
    prior: Prior
    noise: float
    ids: tuple[str, ...]
    keys: Tensor
    values: Tensor
    form: Form
    solved: Solved | None = None

    def positions(self, ids: list[str]) -> list[int]:
        """Where columns stand.

        Args:
            ids: Their ids.

        Raises:
            LedgerError: One is not active.
        """
        where = {name: index for index, name in enumerate(self.ids)}
        unknown = [name for name in ids if name not in where]
        if unknown:
            shown = unknown if len(unknown) <= 8 else [*unknown[:8], "..."]
            raise LedgerError(f"Columns {shown} are not active; expected ids among the {len(self.ids)} active ones.")
        return [where[name] for name in ids]


def prefers_primal(noise: float, size: int, count: int) -> bool:
    """Whether one n x n factor takes the place of an N x N one that grows: past N = n / 2.

    The small one stays faster up to N = 2 n or so, but loses digits on the way: for a moment of condition 1e12 and a
    prior weight of 1e-3 the update at N = n is off by 2e-5 relative, in primal form by less than 1e-7.

    Args:
        noise: s; with 0 there is no primal form.
        size: n.
        count: N.
    """
    return noise > 0 and count > size // 2


def appended(state: Snapshot, ids: list[str], keys: Tensor, values: Tensor) -> Snapshot:
    """The state with more columns.

    Args:
        state: The state before.
        ids: New ids.
        keys: Their keys (n, m).
        values: Their values (d, m).
    """
    if not ids:
        return state
    names = (*state.ids, *ids)
    every = torch.cat([state.keys, keys], dim=1)
    form: Form
    if isinstance(state.form, PrimalForm):
        form = state.form.append(keys, every)
    elif prefers_primal(state.noise, state.prior.size, len(names)):
        form = PrimalForm.build(state.prior, state.noise, every)
    else:
        form = state.form.append(state.prior, keys, list(names))
    return replace(state, ids=names, keys=every, values=torch.cat([state.values, values], dim=1), form=form)


def without(state: Snapshot, places: list[int]) -> Snapshot:
    """The state without some columns.

    Args:
        state: The state before.
        places: Indices of the columns to forget.
    """
    if not places:
        return state
    kept = sorted(set(range(len(state.ids))) - set(places))
    names = [state.ids[index] for index in kept]
    select = torch.tensor(kept, dtype=torch.long, device=state.keys.device)
    keys, values = state.keys[:, select].contiguous(), state.values[:, select].contiguous()
    if isinstance(state.form, GramForm):
        form: Form = state.form.keep(kept, names)
    else:
        form = solved(state.prior, state.noise, keys, names)
    return replace(state, ids=tuple(names), keys=keys, values=values, form=form)


def exchanged(state: Snapshot, places: list[int], keys: Tensor, values: Tensor) -> Snapshot:
    """The state with other keys and values in some places; the factor is kept where the keys are the same.

    Args:
        state: The state before.
        places: Indices of the columns.
        keys: Their new keys (n, m).
        values: Their new values (d, m).
    """
    if not places:
        return state
    where = torch.tensor(places, dtype=torch.long, device=state.keys.device)
    state = replace(state, values=state.values.index_copy(1, where, values))
    if torch.equal(state.keys[:, where], keys):
        return state
    every, names = state.keys.index_copy(1, where, keys), list(state.ids)
    if isinstance(state.form, GramForm):
        form: Form = state.form.exchange(state.prior, places, keys, names)
    else:
        form = solved(state.prior, state.noise, every, names)
    return replace(state, keys=every, form=form)


def solved(prior: Prior, noise: float, keys: Tensor, ids: list[str]) -> Form:
    """The equations of a set of keys, factored from nothing in the form that suits their number.

    Args:
        prior: Q.
        noise: s.
        keys: K (n, N).
        ids: Names of the columns, for messages.
    """
    if prefers_primal(noise, prior.size, len(ids)):
        return PrimalForm.build(prior, noise, keys)
    return GramForm.build(prior, noise, keys, ids)


def rebased(state: Snapshot, base: Tensor) -> Snapshot:
    """The state on another base weight, rounded to the precision in which the base is kept.

    Args:
        state: The state before.
        base: The new W_b (d, n), float64.

    Raises:
        LedgerError: It is not finite in that precision.
    """
    kept = base.to(state.base.dtype)
    if not bool(torch.isfinite(kept).all()):
        raise LedgerError(
            f"The new base weight is not finite in {state.base.dtype}; expected finite entries. Nothing was changed: "
            "look at the drift or the values that led here."
        )
    return replace(state, base=kept)
