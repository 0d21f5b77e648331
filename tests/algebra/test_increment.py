"""Steps from one set of columns to another, read on the deployed weight, against dense normal equations."""

import pytest
import torch
from torch import Tensor

from lightning_edit.algebra import SiteLedger
from lightning_edit.errors import LedgerError
from tests import reference
from tests.algebra.toys import KINDS, Toy, make_prior, make_toy

OLD, CHANGED, NEW = [1, 4, 6], [0, 8], [10, 11, 12]


def dense_step(toy: Toy, penalty: Tensor, basis: Tensor | None, weight: Tensor, moved: Tensor) -> Tensor:
    """D = ((V_new - W K_new) K_newᵀ - (V_old - W K_old) K_oldᵀ) C⁻¹, in coordinates of the prior's range."""
    gone, come = OLD + CHANGED, CHANGED + NEW
    keys, values = toy.keys.clone(), toy.values.clone()
    values[:, CHANGED] = moved
    kept = [i for i in range(13) if i not in OLD]
    B = torch.eye(len(toy.moment), dtype=torch.float64) if basis is None else basis
    C = B.T @ (penalty + keys[:, kept] @ keys[:, kept].T) @ B
    asked = (values[:, come] - weight @ keys[:, come]) @ keys[:, come].T
    asked -= (toy.values[:, gone] - weight @ toy.keys[:, gone]) @ toy.keys[:, gone].T
    return reference.tensor(reference.solve(reference.long(C), reference.long(B.T @ asked.T)).T @ reference.long(B.T))


def changed(kind: str, inner: int) -> tuple[Toy, Tensor, Tensor | None, SiteLedger, object, Tensor]:
    """A ledger of ten columns, and the same one after some went, some changed and some came."""
    toy = make_toy(n=inner, count=13)
    prior, penalty, basis = make_prior(kind, toy.moment)
    ledger = SiteLedger(toy.base, prior)
    ledger.append(*toy.part(list(range(10))))
    before = ledger.snapshot()
    moved = toy.values[:, CHANGED] + 1.0
    ledger.drop([f"c{i}" for i in OLD])
    ledger.replace([f"c{i}" for i in CHANGED], toy.keys[:, CHANGED], moved)
    ledger.append(*toy.part(NEW))
    return toy, penalty, basis, ledger, before, moved


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("inner", "form"), [(60, "gram"), (16, "primal")])
def test_the_step_is_that_of_the_normal_equations(kind, inner, form):
    toy, penalty, basis, ledger, before, moved = changed(kind, inner)
    assert ledger.form == form
    weight = toy.base + 0.1 * torch.randn(toy.base.shape, generator=torch.Generator().manual_seed(3)).double()
    expected = dense_step(toy, penalty, basis, weight, moved)
    assert reference.relative(ledger.increment(before, weight), expected) < 1e-9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("inner", [60, 16])
def test_from_the_exact_weight_it_leads_to_the_exact_weight(kind, inner):
    toy, _, _, ledger, before, _ = changed(kind, inner)
    earlier = SiteLedger(toy.base, ledger.prior)
    earlier.restore(before)
    weight = earlier.solution()
    found = weight + ledger.increment(before, weight)
    assert reference.relative(found - toy.base, ledger.solution() - toy.base) < 1e-9
    undone = ledger.snapshot()
    ledger.restore(before)
    assert reference.relative(found + ledger.increment(undone, found) - toy.base, weight - toy.base) < 1e-9


def test_nothing_changed_is_no_step():
    toy, _, _, ledger, _, _ = changed("covariance", 60)
    weight = ledger.solution() + 1.0
    assert not ledger.increment(ledger.snapshot(), weight).any()
    assert ledger.increment(ledger.snapshot(), weight).shape == toy.base.shape


@pytest.mark.parametrize("what", ["keys", "values"])
def test_columns_that_change_where_they_stand_are_seen(what):
    toy = make_toy(count=8)
    ledger = SiteLedger(toy.base, make_prior("covariance", toy.moment)[0])
    ledger.append(*toy.part([0, 1, 2, 3, 4]))
    before, weight = ledger.snapshot(), ledger.solution()
    other = {"keys": toy.keys[:, [2]], "values": toy.values[:, [2]]}
    other[what] = other[what] + 0.1
    ledger.replace(["c2"], other["keys"], other["values"])
    ledger.append(*toy.part([5, 6]))
    found = weight + ledger.increment(before, weight)
    assert reference.relative(found - toy.base, ledger.solution() - toy.base) < 1e-9


def test_without_noise_columns_can_come_but_not_go():
    toy = make_toy(count=6)
    ledger = SiteLedger(toy.base, make_prior("covariance", toy.moment)[0], noise=0.0)
    ledger.append(*toy.part([0, 1, 2]))
    before, weight = ledger.snapshot(), ledger.solution()
    ledger.append(*toy.part([3]))
    step = ledger.increment(before, weight)
    assert reference.relative(weight + step, ledger.solution()) < 1e-9
    ledger.drop(["c1"])
    with pytest.raises(LedgerError, match=r"\['c1'\] are gone.*noise 0"):
        ledger.increment(before, weight)
