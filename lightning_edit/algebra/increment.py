r"""The step from one set of columns to another, read on the weight that is deployed.

With W the deployed weight, (K_new, V_new) the columns that came or changed and (K_old, V_old) those that went:

$$D = \bigl((V_{new} - W K_{new}) K_{new}^\top - (V_{old} - W K_{old}) K_{old}^\top\bigr) C^{-1},
\qquad C = s Q^{-1} + K K^\top \text{ over all active columns}$$

This is the sequential step of Labyrinth (arXiv 2605.26670), Prop. 3.2, with the conflicts of Prop. 3.5. Where W is the
solution over the old columns, W + D is the one over the new ones; where it is not, its error stays what it was.

Knows two moments of a ledger and a weight. Refuses to know how they came about.
"""

import torch
from torch import Tensor

from lightning_edit.algebra.snapshot import Snapshot
from lightning_edit.errors import LedgerError


def increment(before: Snapshot, now: Snapshot, weight: Tensor) -> Tensor:
    """D (d, n), float64.

    Args:
        before: The ledger when the weight was made.
        now: The ledger as it is.
        weight: W (d, n), float64.

    Raises:
        LedgerError: Columns are gone and the noise is 0, where C is not defined.
    """
    new, old = _changes(before, now)
    step = _correction_at(now, new, now.values[:, new] - weight @ now.keys[:, new])
    if not len(old):
        return step
    if now.noise == 0:
        names = [before.ids[i] for i in old.tolist()[:8]]
        raise LedgerError(
            f"Columns {names} are gone or have changed, and with noise 0 a step that does not look back cannot take "
            'them out. Expected new columns only; deploy with "feedback" instead of "none".'
        )
    keys = before.keys[:, old]
    span = now.prior.apply(keys).mT  # K_oldᵀ Q, and K_oldᵀ C⁻¹ = K_oldᵀ Q (I - Π) / s
    span = (span - now.form.correction(span @ now.keys)) / now.noise
    return step - (before.values[:, old] - weight @ keys) @ span


def _correction_at(state: Snapshot, places: Tensor, rows: Tensor) -> Tensor:
    """R (s I + Kᵀ Q K)⁻¹ Kᵀ Q (d, n) for R (d, N) with columns at some places only, given as (d, m).

    For few columns it is R times m rows of what stands behind it, instead of d rows: 2 m N n + 2 d m n operations.
    """
    if len(places) >= len(rows):
        whole = rows.new_zeros(len(rows), len(state.ids))
        return state.form.correction(whole.index_copy(1, places, rows))
    unit = rows.new_zeros(len(places), len(state.ids))
    unit[torch.arange(len(places), device=places.device), places] = 1
    return rows @ state.form.correction(unit)


def _changes(before: Snapshot, now: Snapshot) -> tuple[Tensor, Tensor]:
    """Which columns came, as indices into now's, and which went, as indices into before's.

    A column that has another key or value did both.
    """
    places = {name: i for i, name in enumerate(before.ids)}
    device = now.keys.device
    there = torch.tensor([places.get(name, -1) for name in now.ids], dtype=torch.long, device=device)
    known = (there >= 0).nonzero().flatten()
    same = torch.ones_like(known, dtype=torch.bool)
    for mine, theirs in ((now.keys, before.keys), (now.values, before.values)):
        same &= _same_columns(mine, known, theirs, there[known])
    came = torch.ones(len(now.ids), dtype=torch.bool, device=device)
    went = torch.ones(len(before.ids), dtype=torch.bool, device=device)
    came[known[same]], went[there[known[same]]] = False, False
    return came.nonzero().flatten(), went.nonzero().flatten()


def _same_columns(mine: Tensor, here: Tensor, theirs: Tensor, there: Tensor) -> Tensor:
    """Which columns of two matrices are equal (c,), column by column of two lists of indices."""
    count = len(here)
    if torch.equal(here, there) and torch.equal(here, torch.arange(count, device=here.device)):  # nothing moved
        mine, theirs = mine[:, :count], theirs[:, :count]
        if torch.equal(mine, theirs):  # as a rule: the new ones stand behind
            return torch.ones_like(here, dtype=torch.bool)
        return (mine == theirs).all(dim=0)
    return (mine[:, here] == theirs[:, there]).all(dim=0)
