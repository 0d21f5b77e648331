"""Noise 0 and small noise through the whole ledger: ROME's and EMMET's equations, whatever happens to the columns."""

import random

import pytest
import torch

from lightning_edit.algebra import CovariancePrior, SiteLedger
from lightning_edit.errors import LedgerError
from tests import reference, reference_rome_emmet_pmet
from tests.algebra.test_ledger_safety import bits, same, through_a_file
from tests.algebra.toys import KINDS, make_prior, make_toy, null_basis


def exact(toy, kind, keys, values, slack=0.0):
    """The dense solution."""
    _, penalty, basis = make_prior(kind, toy.moment)
    return reference_rome_emmet_pmet.emmet(toy.base, penalty, slack, keys, values, basis)


def error(ledger, expected):
    """Relative error of the update."""
    return reference.relative(ledger.solution() - ledger.base, expected - ledger.base)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cond", [1e4, 1e8])
def test_any_order_and_batching_meets_every_value(kind, cond):
    toy = make_toy(n=40, count=12, cond=cond)
    expected = exact(toy, kind, toy.keys, toy.values)
    for seed, size in [(0, 12), (1, 1), (2, 5)]:
        order = random.Random(seed).sample(range(12), 12)
        ledger = SiteLedger(toy.base, make_prior(kind, toy.moment)[0], noise=0.0)
        for start in range(0, 12, size):
            ledger.append(*toy.part(order[start : start + size]))
        assert error(ledger, expected) < 1e-8
        assert reference.relative(ledger.solution() @ ledger.keys, ledger.values) < 1e-10


@pytest.mark.parametrize("kind", KINDS)
def test_undo_and_resolve_are_never_having_had_the_old_columns(kind):
    toy, more = make_toy(n=40, count=12), make_toy(n=40, count=3, seed=5)
    ledger = SiteLedger(toy.base, make_prior(kind, toy.moment)[0], noise=0.0)
    ledger.append(*toy.part(list(range(8))))
    before = ledger.solution()
    ledger.append(*toy.part(list(range(8, 12))))
    ledger.drop(["c11", "c9", "c8", "c10"])
    assert torch.equal(ledger.solution(), before)
    ledger.drop(["c5", "c1"])
    ledger.replace(["c3", "c0"], more.keys[:, :2], more.values[:, :2])
    ledger.replace(["c7"], toy.keys[:, 7:8], more.values[:, 2:])  # the same key: only the value is new
    keys, values = toy.keys[:, [0, 2, 3, 4, 6, 7]], toy.values[:, [0, 2, 3, 4, 6, 7]]
    keys[:, [2, 0]], values[:, [2, 0]] = more.keys[:, :2], more.values[:, :2]
    values[:, 5] = more.values[:, 2]
    assert error(ledger, exact(toy, kind, keys, values)) < 1e-9
    with pytest.raises(LedgerError, match=r"'c2', 'twin' collide"):
        ledger.append(["twin"], toy.keys[:, 2:3], toy.values[:, :1])
    ledger.drop(["c2"])
    ledger.append(["twin"], toy.keys[:, 2:3], toy.values[:, :1])  # nothing left to collide with
    assert ledger.ids[-1] == "twin"


def test_adopted_drift_leaves_every_value_met():
    toy = make_toy(n=40, count=12)
    ledger = SiteLedger(toy.base, CovariancePrior(toy.moment, 1.0), noise=0.0)
    ledger.append(toy.ids, toy.keys, toy.values)
    drift = torch.randn(20, 40, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    expected = reference.adopted(toy.base, torch.linalg.inv(toy.moment), 0.0, toy.keys, drift)
    ledger.adopt(drift)
    assert reference.relative(ledger.base, expected) < 1e-9
    assert reference.relative(ledger.solution() @ toy.keys, toy.values) < 1e-10
    part = ledger.project(drift)  # without noise, what drift does to active keys is told exactly from the rest
    assert reference.relative(part @ toy.keys, drift @ toy.keys) < 1e-10
    assert reference.relative(ledger.project(part), part) < 1e-9


def test_one_step_on_a_deployed_weight_does_not_touch_older_keys():
    toy = make_toy(n=40, count=12)
    ledger = SiteLedger(toy.base, CovariancePrior(toy.moment, 1.0), noise=0.0)
    ledger.append(toy.ids[:10], toy.keys[:, :10], toy.values[:, :10])
    before = ledger.snapshot()
    ledger.append(toy.ids[10:], toy.keys[:, 10:], toy.values[:, 10:])
    step = ledger.increment(before, toy.base)
    assert float((step @ toy.keys[:, :10]).norm()) < 1e-10 * float(step.norm())
    assert reference.relative((toy.base + step) @ toy.keys[:, 10:], toy.values[:, 10:]) < 1e-10


@pytest.mark.parametrize("kind", ["null_space", "projected"])
def test_a_key_that_no_update_reaches_is_named_and_changes_no_bit(kind):
    toy = make_toy(n=40, count=6)
    ledger = SiteLedger(toy.base, make_prior(kind, toy.moment)[0], noise=0.0)
    ledger.append(toy.ids, toy.keys, toy.values)
    null = null_basis(toy.moment, 0.02)
    outside = toy.keys[:, :1] - null @ (null.mT @ toy.keys[:, :1])
    before = bits(ledger)
    changes = (
        lambda: ledger.append(["far"], outside, toy.values[:, :1]),
        lambda: ledger.replace(["c4"], outside, toy.values[:, :1]),
        lambda: ledger.set_columns(["a", "b"], torch.cat([toy.keys[:, :1], outside], dim=1), toy.values[:, :2]),
    )
    for change, name in zip(changes, ("far", "c4", "b"), strict=True):
        with pytest.raises(LedgerError, match=rf"columns '{name}' are zero or have no part in the prior's range"):
            change()
        assert same(bits(ledger), before)
    welcome = SiteLedger(toy.base, make_prior(kind, toy.moment)[0], noise=0.1)
    welcome.append(["far"], outside, toy.values[:, :1])  # with noise, it is simply not met
    assert float((welcome.solution() - welcome.base).norm()) < 1e-10


def test_a_zero_key_is_named():
    toy = make_toy(n=40, count=6)
    ledger = SiteLedger(toy.base, CovariancePrior(toy.moment, 1.0), noise=0.0)
    with pytest.raises(LedgerError, match="columns 'nothing' are zero"):
        ledger.append(["nothing"], torch.zeros(40, 1), toy.values[:, :1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_little_noise_through_the_changeover_and_back(kind):
    toy = make_toy(n=40, count=28, cond=1e8)
    ledger = SiteLedger(toy.base, make_prior(kind, toy.moment)[0], noise=0.1)
    forms = []
    for start in range(0, 28, 7):
        ledger.append(*toy.part(list(range(start, start + 7))))
        forms.append(ledger.form)
    assert forms == ["gram", "gram", "primal", "primal"]
    assert error(ledger, exact(toy, kind, toy.keys, toy.values, 0.1)) < 1e-9
    ledger.drop([f"c{i}" for i in range(4, 20)])
    assert ledger.form == "gram"
    _, keys, values = toy.part([i for i in range(28) if not 4 <= i < 20])
    assert error(ledger, exact(toy, kind, keys, values, 0.1)) < 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_resumes_bit_for_bit_without_noise(kind):
    toy = make_toy(n=40, count=12)
    ledger = SiteLedger(toy.base, make_prior(kind, toy.moment)[0], noise=0.0)
    ledger.append(*toy.part(list(range(9))))
    late = SiteLedger(torch.zeros_like(toy.base), make_prior(kind, toy.moment)[0], noise=0.0)
    late.load_state_dict(through_a_file(ledger.state_dict()))
    for one in (ledger, late):
        one.drop(["c3"])
        one.append(*toy.part([9, 10, 11]))
    assert same(bits(late), bits(ledger))
    assert torch.equal(late.solution(), ledger.solution())


def test_absorbed_steps_are_a_chain_of_one_time_solutions():
    toy = make_toy(n=40, count=6)
    ledger = SiteLedger(toy.base, CovariancePrior(toy.moment, 1.0), noise=0.0)
    weight = toy.base
    for i in range(6):
        ledger.append(*toy.part([i]))
        ledger.absorb()
        key, value = toy.keys[:, i], toy.values[:, i]
        weight = reference_rome_emmet_pmet.rome(weight, toy.moment, key, value - weight @ key)
        assert reference.relative(ledger.solution(), weight) < 1e-10
    assert len(ledger) == 0
