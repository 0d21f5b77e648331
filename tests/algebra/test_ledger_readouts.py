"""What can be read off a ledger: the update in factors, C and E, drift, single steps, exact interpolation."""

import pytest
import torch

from lightning_edit.algebra import CovariancePrior, NullSpacePrior, SiteLedger, TopKRelativeChange, next_weight
from lightning_edit.errors import LedgerError
from tests import reference
from tests.algebra.toys import KINDS, dense, make_prior, make_toy
from tests.reference_feedback import RESTRICTIONS, ROUNDING, error_feedback

COUNTS = [24, 45]  # Gram form, primal form (n = 60)
# Relative distance of MEMIT's recursion in plain float32 from the exact solution, by the condition of M: what numpy's
# LU gave at this size (d = 64, n = 160, ten steps of eight edits, worst of three draws). From 1e10 on it is none.
FLOAT32 = {1e2: 3e-6, 1e4: 4e-5, 1e8: 3e-3, 1e10: 1.2, 1e12: 8e2}


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


@pytest.mark.parametrize("name", RESTRICTIONS)
@pytest.mark.parametrize("cond", ROUNDING)
@pytest.mark.parametrize("kind", KINDS)
def test_feedback_is_algorithm_one_and_compensation_is_its_e_matrix(kind, cond, name):
    toy = make_toy(count=20, cond=cond)
    prior, penalty, basis = make_prior(kind, toy.moment)
    ledger, deployed = SiteLedger(toy.base, prior), toy.base
    (restrict, plainly), batches = RESTRICTIONS[name], []
    coordinates = prior.coordinates(torch.eye(60, dtype=torch.float64))  # (r, n)
    bound = ROUNDING[cond] if kind == "covariance" else 2e-13  # other priors are bounded, whatever M is
    for i in range(0, 20, 5):
        ids, keys, values = toy.part(list(range(i, i + 5)))
        ledger.append(ids, keys, values)
        batches.append((keys, values))
        wanted = ledger.solution() - deployed
        allowed = restrict(wanted, deployed)
        deployed = next_weight(ledger.solution(), deployed, toy.base, restrict)
        expected, error_matrix, error = error_feedback(toy.base, penalty, batches, plainly, basis)
        assert float(error.norm()) > 0.02 * float(wanted.norm())  # something was restricted
        assert reference.relative(deployed - toy.base, expected - toy.base) < bound
        assert reference.relative(ledger.compensation(deployed) @ coordinates, error_matrix) < bound
        assert reference.relative(deployed - ledger.solution(), error) < bound  # W_T = S_T + D_T
        assert reference.relative(allowed - wanted, error) < bound
    if basis is None:
        published, published_matrix, _ = reference.algorithm_one(toy.base, penalty, batches, plainly)
        assert reference.relative(deployed - toy.base, published - toy.base) < bound
        assert reference.relative(ledger.compensation(deployed), published_matrix) < bound


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("cond", FLOAT32)
def test_a_float32_weight_is_edited_beyond_the_range_of_float32(cond, seed):
    toy = make_toy(d=64, n=160, count=80, cond=cond, seed=seed)
    base, penalty = toy.base.float(), 15.0 * toy.moment
    exact = reference.one_time(base, penalty, 1.0, toy.keys, toy.values)
    parts = [toy.part(list(range(i, i + 8))) for i in range(0, 80, 8)]
    batches = [(keys.float(), values.float()) for _, keys, values in parts]

    def step_by_step(solver):
        weight, moment = base, penalty.float()
        for keys, values in batches:
            moment = moment + keys @ keys.T
            weight = weight + solver(moment, keys @ (values - weight @ keys).T).T
        return reference.relative(weight - base, exact - base.double())

    found, stated = step_by_step(torch.linalg.solve), FLOAT32[cond]
    assert stated / 5 < found < 5 * stated if cond < 1e10 else found > 1
    if cond >= 1e10:
        with pytest.raises(torch.linalg.LinAlgError):  # not positive definite any more
            step_by_step(lambda matrix, right: torch.cholesky_solve(right, torch.linalg.cholesky(matrix)))
    ledger = SiteLedger(base, CovariancePrior(toy.moment, 15.0))
    for part in parts:
        ledger.append(*part)
    assert reference.relative(ledger.solution() - base, exact - base.double()) < (1e-9 if cond <= 1e8 else 1e-8)
    assert reference.relative(ledger.solution().float(), exact) < 2**-24  # of which float32 keeps what it can


@pytest.mark.parametrize("cond", [1e2, 1e12])
def test_alphaedit_in_float32_does_not_care_for_the_condition(cond):
    toy = make_toy(d=64, n=160, count=80, cond=cond)
    prior, penalty, basis = make_prior("null_space", toy.moment)
    base, eye = toy.base.float(), torch.eye(160, dtype=torch.float64)
    exact = reference.one_time(base, penalty, 1.0, toy.keys, toy.values, basis)
    projector, history, weight = prior.project(eye).float(), torch.zeros(160, 160), base
    ledger = SiteLedger(base, prior)
    for i in range(0, 80, 8):
        ids, keys, values = toy.part(list(range(i, i + 8)))
        ledger.append(ids, keys, values)
        keys, values = keys.float(), values.float()
        history = history + keys @ keys.T
        right = projector @ keys @ (values - weight @ keys).T
        weight = weight + torch.linalg.solve(projector @ history + 10.0 * eye.float(), right).T
    assert 4e-7 / 5 < reference.relative(weight - base, exact - base.double()) < 5 * 4e-7  # stated: 4e-7
    assert reference.relative(ledger.solution() - base, exact - base.double()) < 1e-12


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
