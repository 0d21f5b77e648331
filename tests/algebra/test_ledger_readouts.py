"""What can be read off a ledger: the update in factors, C and E, drift, single steps, exact interpolation."""

import pytest
import torch

from lightning_edit.algebra import CovariancePrior, NullSpacePrior, SiteLedger, TopKRelativeChange, next_weight
from lightning_edit.errors import LedgerError
from tests import reference
from tests.algebra.toys import KINDS, dense, make_prior, make_toy

COUNTS = [24, 45]  # Gram form, primal form (n = 60)


def filled(kind, count, noise=1.0, seed=0):
    toy = make_toy(count=count, seed=seed)
    ledger = SiteLedger(toy.base, make_prior(kind, toy.moment)[0], noise)
    ledger.append(toy.ids, toy.keys, toy.values)
    return toy, ledger


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", COUNTS)
def test_delta_is_the_update_in_factors(kind, count):
    toy, ledger = filled(kind, count)
    left, right = ledger.delta()
    assert left.shape == (20, count)
    assert right.shape == (60, count)
    assert reference.relative(left @ right.T, ledger.solution() - toy.base) < 1e-9
    assert reference.relative(right, ledger.prior.apply(toy.keys)) < 1e-12


def test_rank_is_at_most_d_and_n():
    assert [filled("covariance", count)[1].rank() for count in (5, 24, 45)] == [5, 20, 20]
    toy = make_toy()
    assert SiteLedger(toy.base, CovariancePrior(toy.moment, 1.0)).rank() == 0


@pytest.mark.parametrize("count", COUNTS)
def test_condition_is_that_of_the_factored_matrix(count):
    toy, ledger = filled("covariance", count)
    gram = torch.eye(count, dtype=torch.float64) + toy.keys.T @ dense(ledger.prior) @ toy.keys
    matrix = gram if count == 24 else 15.0 * toy.moment + toy.keys @ toy.keys.T
    assert ledger.condition() == pytest.approx(float(torch.linalg.cond(matrix)), rel=1e-6)
    assert SiteLedger(toy.base, ledger.prior).condition() == 1.0


@pytest.mark.parametrize("count", COUNTS)
def test_covariance_is_the_papers_matrix(count):
    toy, ledger = filled("covariance", count, noise=2.0)
    expected = 2.0 * 15.0 * toy.moment + toy.keys @ toy.keys.T
    assert reference.relative(ledger.covariance(), expected) < 1e-13


@pytest.mark.parametrize("kind", ["null_space", "projected"])
def test_covariance_of_a_projecting_prior_is_in_null_space_coordinates(kind):
    toy, ledger = filled(kind, 24)
    rank = ledger.prior.rank
    identity = torch.eye(60, dtype=torch.float64)
    basis = ledger.prior.coordinates(identity).T  # (n, r)
    assert reference.relative(basis.T @ basis, torch.eye(rank, dtype=torch.float64)) < 1e-13
    assert reference.relative(basis @ basis.T, ledger.prior.project(identity)) < 1e-13
    penalty = 10.0 * identity if kind == "null_space" else 15.0 * toy.moment + 0.5 * identity
    expected = basis.T @ (penalty + toy.keys @ toy.keys.T) @ basis
    assert ledger.covariance().shape == (rank, rank)
    assert reference.relative(ledger.covariance(), expected) < 1e-12


def test_covariance_is_undefined_without_noise():
    _, ledger = filled("covariance", 24, noise=0.0)
    with pytest.raises(LedgerError, match="noise > 0"):
        ledger.covariance()


@pytest.mark.parametrize("kind", ["covariance", "ridge"])
def test_feedback_is_algorithm_one_and_compensation_is_its_e_matrix(kind):
    toy = make_toy(count=20)
    prior, penalty, _ = make_prior(kind, toy.moment)
    ledger, deployed = SiteLedger(toy.base, prior), toy.base
    rect, batches = TopKRelativeChange(0.3), []
    for i in range(0, 20, 5):
        ids, keys, values = toy.part(list(range(i, i + 5)))
        ledger.append(ids, keys, values)
        batches.append((keys, values))
        wanted = ledger.solution() - deployed
        allowed = rect(wanted, deployed)
        deployed = next_weight(ledger.solution(), deployed, toy.base, rect)
        expected, error_matrix, error = reference.algorithm_one(
            toy.base, penalty, batches, lambda update, weight: reference.rect(update, weight, 0.3)
        )
        assert reference.relative(deployed - toy.base, expected - toy.base) < 1e-9
        assert reference.relative(ledger.compensation(deployed), error_matrix) < 1e-9
        assert reference.relative(deployed - ledger.solution(), error) < 1e-9  # W_T = S_T + D_T
        assert reference.relative(allowed - wanted, error) < 1e-9


def test_increment_is_the_uncompensated_step():
    toy = make_toy(count=45)
    prior, penalty, _ = make_prior("covariance", toy.moment)
    ledger, deployed, batches = SiteLedger(toy.base, prior), toy.base, []
    rect = TopKRelativeChange(0.3)
    for i in range(0, 45, 15):
        ids, keys, values = toy.part(list(range(i, i + 15)))
        before = ledger.snapshot()
        ledger.append(ids, keys, values)
        batches.append((keys, values))
        step = ledger.increment(before, deployed)
        deployed = next_weight(ledger.solution(), deployed, toy.base, rect, "none", step)
        expected = reference.uncompensated(
            toy.base, penalty, batches, lambda update, weight: reference.rect(update, weight, 0.3)
        )
        assert reference.relative(deployed - toy.base, expected - toy.base) < 1e-9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", COUNTS)
def test_project_and_adopt_are_the_dense_near_projector(kind, count):
    toy, ledger = filled(kind, count)
    drift = 0.3 * torch.randn(20, 60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    adopted = reference.adopted(toy.base, dense(ledger.prior), 1.0, toy.keys, drift)
    assert reference.relative(toy.base + drift - ledger.project(drift), adopted) < 1e-11
    assert reference.relative(ledger.project(drift[3]), ledger.project(drift)[3]) < 1e-12
    ledger.adopt(drift)
    assert reference.relative(ledger.base, adopted) < 1e-11
    _, penalty, basis = make_prior(kind, toy.moment)
    expected = reference.one_time(adopted, penalty, 1.0, toy.keys, toy.values, basis)
    assert reference.relative(ledger.solution(), expected) < 1e-11


def test_adopted_drift_does_not_undo_edits_and_undo_keeps_it():
    toy, ledger = filled("covariance", 24)
    drift = 0.3 * torch.randn(20, 60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    drifted = ledger.solution() + drift
    ledger.adopt(drift)

    def miss(weight):
        return float((weight @ toy.keys - toy.values).norm() / (toy.base @ toy.keys - toy.values).norm())

    assert miss(ledger.solution()) < 0.7 * miss(drifted)
    base = ledger.base
    ledger.drop(["c2", "c5"])
    _, keys, values = toy.part([i for i in range(24) if i not in (2, 5)])
    expected = reference.one_time(base, 15.0 * toy.moment, 1.0, keys, values)
    assert reference.relative(ledger.solution(), expected) < 1e-11


def test_without_columns_all_drift_is_adopted_bit_for_bit():
    toy = make_toy()
    base = toy.base.float()
    ledger = SiteLedger(base, CovariancePrior(toy.moment, 15.0))
    trained = base + 0.01 * torch.randn(20, 60, generator=torch.Generator().manual_seed(1))
    ledger.adopt(trained.double() - base.double())
    assert torch.equal(ledger.base, trained)


def test_noise_zero_interpolates_exactly():
    toy, ledger = filled("covariance", 24, noise=0.0)
    expected = reference.interpolation(toy.base, 15.0 * toy.moment, toy.keys, toy.values)
    assert reference.relative(ledger.solution() - toy.base, expected - toy.base) < 1e-10
    assert reference.relative(ledger.solution() @ toy.keys, toy.values) < 1e-10
    ledger.drop(["c0", "c9"])
    ledger.append(*toy.part([9, 0]))
    assert reference.relative(ledger.solution() - toy.base, expected - toy.base) < 1e-10


def test_noise_zero_one_request_is_rome():
    toy = make_toy(count=1)
    ledger = SiteLedger(toy.base, CovariancePrior(toy.moment, 1.0), noise=0.0)
    ledger.append(toy.ids, toy.keys, toy.values)
    direction = torch.linalg.solve(toy.moment, toy.keys)  # (n, 1)
    rome = toy.base + (toy.values - toy.base @ toy.keys) @ direction.T / (toy.keys * direction).sum()
    assert reference.relative(ledger.solution(), rome) < 1e-11


def test_noise_zero_stays_in_gram_form():
    _, ledger = filled("covariance", 45, noise=0.0)
    assert ledger.form == "gram"


@pytest.mark.parametrize("within", [True, False])
def test_noise_zero_names_the_colliding_columns(within):
    toy = make_toy(count=20)
    keys = toy.keys.clone()
    keys[:, 13] = 2 * keys[:, 4]
    ledger = SiteLedger(toy.base, CovariancePrior(toy.moment, 15.0), noise=0.0)
    start = 0 if within else 10
    ledger.append(toy.ids[:start], keys[:, :start], toy.values[:, :start])
    before = ledger.snapshot()
    with pytest.raises(LedgerError, match=r"columns 'c4', 'c13' collide"):
        ledger.append(toy.ids[start:], keys[:, start:], toy.values[:, start:])
    assert ledger.snapshot() is before


def test_noise_zero_refuses_more_columns_than_directions():
    toy = make_toy(n=30, count=31)
    ledger = SiteLedger(toy.base, CovariancePrior(toy.moment, 15.0), noise=0.0)
    with pytest.raises(LedgerError, match="'c30' collide"):
        ledger.append(toy.ids, toy.keys, toy.values)


@pytest.mark.parametrize("count", COUNTS)
def test_null_space_updates_never_touch_what_text_uses(count):
    toy = make_toy(count=count)
    values, vectors = torch.linalg.eigh(toy.moment)
    used = vectors[:, values >= 0.02]
    ledger = SiteLedger(toy.base, NullSpacePrior(toy.moment, threshold=0.02, l2=1e-9))
    ledger.append(toy.ids, toy.keys, toy.values)
    update = ledger.solution() - toy.base
    assert float((update @ used).norm() / update.norm()) < 1e-13
