"""Any order and any batching, appending and undoing, either form: the one-time solution."""

import random

import pytest
import torch

from lightning_edit.algebra import CovariancePrior, SiteLedger
from tests import reference
from tests.algebra.toys import KINDS, make_prior, make_toy

GRAM = {1e8: 1e-9, 1e12: 1e-8}
PRIMAL = {1e8: 1e-9, 1e12: 1e-7}


def update_error(ledger, expected):
    """Relative error of the update S - W_b, which is stricter than that of S."""
    return reference.relative(ledger.solution() - ledger.base, expected - ledger.base)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cond", [1e8, 1e12])
@pytest.mark.parametrize(("count", "form"), [(30, "gram"), (31, "primal"), (75, "primal")])
def test_any_order_and_batching_is_the_one_time_solution(kind, cond, count, form):
    toy = make_toy(count=count, cond=cond)
    prior, penalty, basis = make_prior(kind, toy.moment)
    expected = reference.one_time(toy.base, penalty, 1.0, toy.keys, toy.values, basis)
    tolerance = (GRAM if form == "gram" else PRIMAL)[cond]
    for seed, sizes in [(0, [count]), (1, [1] * count), (2, [7, 1, 12])]:
        order = random.Random(seed).sample(range(count), count)
        ledger = SiteLedger(toy.base, prior)
        while order:
            batch, order = order[: sizes[0]], order[sizes[0] :]
            sizes = [*sizes[1:], sizes[0]]
            ledger.append(*toy.part(batch))
        assert ledger.form == form
        assert update_error(ledger, expected) < tolerance


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cond", [1e8, 1e12])
def test_changeover_there_and_back(kind, cond):
    toy = make_toy(count=90, cond=cond, seed=3)
    prior, penalty, basis = make_prior(kind, toy.moment)
    ledger = SiteLedger(toy.base, prior)
    forms = []
    for start in range(0, 90, 15):
        ledger.append(*toy.part(list(range(start, start + 15))))
        forms.append(ledger.form)
    assert forms == ["gram", "gram", "primal", "primal", "primal", "primal"]
    for gone, form in [(range(40), "primal"), (range(60, 85), "gram"), (range(40, 45), "gram")]:
        ledger.drop([f"c{i}" for i in gone])
        assert ledger.form == form
        left = [int(name[1:]) for name in ledger.ids]
        _, keys, values = toy.part(left)
        expected = reference.one_time(toy.base, penalty, 1.0, keys, values, basis)
        assert update_error(ledger, expected) < PRIMAL[cond]


@pytest.mark.parametrize("weight", [1e-3, 0.1, 1e4])
@pytest.mark.parametrize(("count", "form"), [(80, "gram"), (81, "primal")])
def test_small_and_large_prior_weight_at_the_changeover(weight, count, form):
    toy = make_toy(n=160, count=count, cond=1e12)
    ledger = SiteLedger(toy.base, CovariancePrior(toy.moment, weight))
    ledger.append(toy.ids, toy.keys, toy.values)
    assert ledger.form == form
    expected = reference.one_time(toy.base, weight * toy.moment, 1.0, toy.keys, toy.values)
    assert update_error(ledger, expected) < (1e-8 if form == "gram" else 1e-7)


def test_noise_scales_the_prior():
    toy = make_toy()
    for noise in (0.1, 7.0):
        ledger = SiteLedger(toy.base, CovariancePrior(toy.moment, 2.0), noise)
        ledger.append(toy.ids, toy.keys, toy.values)
        expected = reference.one_time(toy.base, 2.0 * toy.moment, noise, toy.keys, toy.values)
        assert update_error(ledger, expected) < 1e-12


def test_published_recursions_give_the_same_weight():
    toy = make_toy(count=20)
    batches = [(toy.keys[:, i : i + 4], toy.values[:, i : i + 4]) for i in range(0, 20, 4)]
    memit, alpha = (SiteLedger(toy.base, make_prior(kind, toy.moment)[0]) for kind in ("covariance", "null_space"))
    projector = alpha.prior.project(torch.eye(60, dtype=torch.float64))
    for i in range(0, 20, 4):
        memit.append(*toy.part(list(range(i, i + 4))))
        alpha.append(*toy.part(list(range(i, i + 4))))
    assert update_error(memit, reference.recursion(toy.base, 15.0 * toy.moment, batches)) < 1e-11
    assert update_error(alpha, reference.alphaedit(toy.base, projector, 10.0, batches)) < 1e-11


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [24, 50])
def test_undo_of_any_subset_in_any_order(kind, count):
    toy = make_toy(count=count)
    prior, penalty, basis = make_prior(kind, toy.moment)
    rng = random.Random(count)
    for _ in range(4):
        ledger = SiteLedger(toy.base, prior)
        ledger.append(toy.ids, toy.keys, toy.values)
        gone = rng.sample(range(count), rng.randint(1, count - 1))
        split = rng.randint(0, len(gone))
        ledger.drop([f"c{i}" for i in gone[:split]])
        ledger.drop([f"c{i}" for i in gone[split:]])
        ids, keys, values = toy.part([i for i in range(count) if i not in gone])
        assert ledger.ids == ids
        assert torch.equal(ledger.keys, keys)
        assert torch.equal(ledger.values, values)
        assert update_error(ledger, reference.one_time(toy.base, penalty, 1.0, keys, values, basis)) < 1e-9


def test_undo_of_the_newest_restores_every_bit():
    toy = make_toy(count=24)
    ledger = SiteLedger(toy.base, make_prior("covariance", toy.moment)[0])
    for start, stop in [(0, 1), (1, 9), (9, 16)]:  # factored at once, the bits would be others
        ledger.append(*toy.part(list(range(start, stop))))
    before = ledger.solution()
    ledger.append(*toy.part(list(range(16, 24))))
    assert not torch.equal(ledger.solution(), before)
    ledger.drop([f"c{i}" for i in range(23, 15, -1)])
    assert torch.equal(ledger.solution(), before)


def test_undo_of_everything_leaves_the_base_bit_for_bit():
    toy = make_toy(count=40)
    ledger = SiteLedger(toy.base, make_prior("covariance", toy.moment)[0])
    assert torch.equal(ledger.solution(), toy.base)
    ledger.append(toy.ids, toy.keys, toy.values)
    ledger.drop(reversed(toy.ids))
    assert ledger.form == "gram"
    assert torch.equal(ledger.solution(), toy.base)


@pytest.mark.parametrize("count", [20, 40])
@pytest.mark.parametrize("same_keys", [True, False])
def test_resolve_equals_never_had_the_old_one(count, same_keys):
    toy, other = make_toy(count=count), make_toy(count=count, seed=5)
    prior, penalty, _ = make_prior("covariance", toy.moment)
    changed = [1, 7, 12]
    keys, values = toy.keys.clone(), toy.values.clone()
    keys[:, changed] = keys[:, changed] if same_keys else other.keys[:, changed]
    values[:, changed] = other.values[:, changed]
    ledger = SiteLedger(toy.base, prior)
    ledger.append(toy.ids, toy.keys, toy.values)
    shuffled = [12, 1, 7]
    ledger.replace([f"c{i}" for i in shuffled], keys[:, shuffled], values[:, shuffled])
    assert ledger.ids == toy.ids
    assert torch.equal(ledger.keys, keys)
    assert torch.equal(ledger.values, values)
    assert update_error(ledger, reference.one_time(toy.base, penalty, 1.0, keys, values)) < 1e-9
    rest = [i for i in range(count) if i not in changed]
    pairs = [(toy.keys[:, rest], toy.values[:, rest]), (toy.keys[:, changed], toy.values[:, changed])]
    downdated = reference.resolve(toy.base, penalty, *pairs, (keys[:, changed], values[:, changed]))
    assert update_error(ledger, downdated) < 1e-9


def test_resolving_values_keeps_the_factor():
    toy = make_toy(count=20)
    ledger = SiteLedger(toy.base, make_prior("covariance", toy.moment)[0])
    ledger.append(toy.ids, toy.keys, toy.values)
    form = ledger.snapshot().form
    ledger.replace(["c3"], toy.keys[:, 3:4], toy.values[:, 5:6])
    assert ledger.snapshot().form is form


@pytest.mark.parametrize("count", [20, 40])
def test_set_columns_is_a_fresh_start(count):
    toy = make_toy(count=count)
    prior, penalty, _ = make_prior("covariance", toy.moment)
    ledger = SiteLedger(toy.base, prior)
    ledger.append([f"old{i}" for i in range(count)], make_toy(count=count, seed=8).keys, toy.values)
    ledger.set_columns(toy.ids, toy.keys, toy.values)
    assert ledger.ids == toy.ids
    assert update_error(ledger, reference.one_time(toy.base, penalty, 1.0, toy.keys, toy.values)) < 1e-11


def test_history_latest_is_memorize_the_latest_with_full_normal_equations():
    toy = make_toy(count=20)
    ledger = SiteLedger(toy.base, make_prior("covariance", toy.moment)[0])
    batches = []
    for i in range(0, 20, 5):
        ids, keys, values = toy.part(list(range(i, i + 5)))
        ledger.set_columns(ids, keys, values)
        batches.append((keys, values))
        assert update_error(ledger, reference.latest(toy.base, 15.0 * toy.moment, batches)) < 1e-10


def test_history_absorbed_is_the_naive_editor():
    toy = make_toy(count=20)
    ledger = SiteLedger(toy.base, make_prior("covariance", toy.moment)[0])
    naive = toy.base
    for i in range(0, 20, 5):
        ids, keys, values = toy.part(list(range(i, i + 5)))
        ledger.append(ids, keys, values)
        naive = reference.one_time(naive, 15.0 * toy.moment, 1.0, keys, values)
        assert reference.relative(ledger.solution() - toy.base, naive - toy.base) < 1e-11
        ledger.absorb()
        assert ledger.ids == []
        assert reference.relative(ledger.base - toy.base, naive - toy.base) < 1e-11
        assert torch.equal(ledger.solution(), ledger.base)


@pytest.mark.parametrize("count", [20, 40])
def test_reprior_solves_the_active_set_again(count):
    toy = make_toy(count=count)
    ledger = SiteLedger(toy.base, make_prior("covariance", toy.moment)[0])
    ledger.append(toy.ids, toy.keys, toy.values)
    for kind in KINDS:
        prior, penalty, basis = make_prior(kind, toy.moment)
        ledger.reprior(prior)
        expected = reference.one_time(toy.base, penalty, 1.0, toy.keys, toy.values, basis)
        assert update_error(ledger, expected) < 1e-11
        ledger.drop(["c0"])
        ledger.append(*toy.part([0]))
        assert update_error(ledger, expected) < 1e-11


def test_equal_keys_are_welcome_where_there_is_noise():
    toy = make_toy(count=20)
    keys = toy.keys.clone()
    keys[:, 1], keys[:, 2] = keys[:, 0], keys[:, 0] * (1 + 1e-14)
    prior, penalty, _ = make_prior("covariance", toy.moment)
    ledger = SiteLedger(toy.base, prior)
    ledger.append(toy.ids, keys, toy.values)
    assert update_error(ledger, reference.one_time(toy.base, penalty, 1.0, keys, toy.values)) < 1e-11


def test_float32_inputs_are_solved_in_float64_and_the_base_stays_float32():
    toy = make_toy(count=20)
    base, keys, values = toy.base.float(), toy.keys.float(), toy.values.float()
    prior, penalty, _ = make_prior("covariance", toy.moment)
    ledger = SiteLedger(base, prior)
    ledger.append(toy.ids, keys, values)
    assert ledger.base.dtype == torch.float32
    assert ledger.solution().dtype == torch.float64
    assert update_error(ledger, reference.one_time(base, penalty, 1.0, keys, values)) < 1e-11
    assert SiteLedger(toy.base.bfloat16(), prior).base.dtype == torch.float32
