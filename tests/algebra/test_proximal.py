"""Penalised solutions against coordinate descent, their certificate, and steps that add up to the one-time solution."""

import pytest
import torch

from lightning_edit.algebra import L1Penalty, Penalty, SiteLedger, TopKRelativeChange, next_weight
from lightning_edit.algebra.sensitive_ledger import SensitiveLedger
from lightning_edit.algebra.sensitivity import Sensitivity
from lightning_edit.errors import LedgerError, StateError
from tests import reference, reference_proximal
from tests.algebra.toys import Toy, make_prior, make_toy


def toy(count: int = 6, seed: int = 0) -> Toy:
    return make_toy(d=3, n=10, count=count, cond=50.0, seed=seed)


def penalised(
    problem: Toy, weight: float, kind: str = "covariance", **options: float
) -> tuple[SiteLedger, torch.Tensor]:
    prior, dense, _ = make_prior(kind, problem.moment)
    return SiteLedger(problem.base, prior, 1.0, L1Penalty(weight=weight, **options)), dense


@pytest.mark.parametrize("kind", ["covariance", "ridge"])
@pytest.mark.parametrize(("count", "form"), [(4, "gram"), (9, "primal")])
def test_the_solution_is_that_of_coordinate_descent(kind, count, form):
    problem = toy(count)
    ledger, dense = penalised(problem, 0.4, kind, tolerance=1e-22)
    ledger.append(problem.ids, problem.keys, problem.values)
    assert ledger.form == form
    expected = reference_proximal.lasso(problem.base, dense, 1.0, problem.keys, problem.values, 0.4)
    update = ledger.solution() - problem.base
    assert reference.relative(update, expected - problem.base) < 1e-9
    zeros = (expected - problem.base).abs() < 1e-14
    assert 0.1 < zeros.double().mean() < 0.9  # it does select
    assert float(update[zeros].abs().max()) == 0.0


def test_without_weight_it_is_the_closed_form():
    problem = toy()
    ledger, dense = penalised(problem, 0.0, tolerance=1e-22)
    ledger.append(problem.ids, problem.keys, problem.values)
    expected = reference.one_time(problem.base, dense, 1.0, problem.keys, problem.values)
    assert reference.relative(ledger.solution() - problem.base, expected - problem.base) < 1e-9


def test_from_the_largest_useful_weight_on_nothing_is_edited():
    problem = toy()
    largest = float(((problem.values - problem.base @ problem.keys) @ problem.keys.mT).abs().max())
    for factor, edited in ((1.0001, False), (0.9, True)):
        ledger, _ = penalised(problem, factor * largest)
        ledger.append(problem.ids, problem.keys, problem.values)
        assert bool((ledger.solution() != problem.base).any()) is edited


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-12])
def test_the_gap_bounds_the_distance_from_the_optimum(tolerance):
    problem = toy()
    ledger, dense = penalised(problem, 0.4, tolerance=tolerance)
    ledger.append(problem.ids, problem.keys, problem.values)
    found, solved = ledger.solution() - problem.base, ledger.snapshot().solved
    best = reference_proximal.lasso(problem.base, dense, 1.0, problem.keys, problem.values, 0.4) - problem.base
    terms = (problem.base, dense, 1.0, problem.keys, problem.values, 0.4)
    loss, least = (reference_proximal.objective(*terms, update) for update in (found, best))
    residual = problem.values - problem.base @ problem.keys
    assert 0 <= solved.gap <= tolerance * 0.5 * float(residual.square().sum())
    assert loss - least <= solved.gap + 1e-13
    off = found - best
    length = (off @ (problem.keys @ problem.keys.mT + dense) @ off.mT).trace()
    assert 0.5 * float(length) <= solved.gap + 1e-13
    assert float((off @ problem.keys).norm()) <= tolerance**0.5 * float(residual.norm()) + 1e-9
    if tolerance == 1e-3:
        assert solved.gap > 1e-8  # it did stop early, so the bounds were put to the test


def test_sequential_steps_add_up_and_each_solves_its_own_subproblem():
    problem = toy()
    ledger, dense = penalised(problem, 0.4, tolerance=1e-24)
    before = torch.zeros_like(problem.base)
    for i in range(0, 6, 2):
        ledger.append(*problem.part([i, i + 1]))
        keys, values = problem.keys[:, : i + 2], problem.values[:, : i + 2]
        total = ledger.solution() - problem.base
        step = reference_proximal.lasso_step(problem.base, dense, 1.0, keys, values, 0.4, before)
        assert reference.relative(total - before, step) < 1e-8
        before = total
    expected = reference_proximal.lasso(problem.base, dense, 1.0, problem.keys, problem.values, 0.4)
    assert reference.relative(before, expected - problem.base) < 1e-9


def test_at_the_default_tolerance_steps_add_up_to_the_one_time_outputs_within_its_root():
    problem = make_toy(d=3, n=10, count=6, cond=1e6)
    one, steps = penalised(problem, 0.1)[0], penalised(problem, 0.1)[0]
    one.append(problem.ids, problem.keys, problem.values)
    for i in range(6):
        steps.append(*problem.part([i]))
        steps.solution()
    off = (steps.solution() - one.solution()) @ problem.keys
    residual = problem.values - problem.base @ problem.keys
    assert one.penalty.tolerance == 1e-6
    assert 0 < float(off.norm()) <= 2 * one.penalty.tolerance**0.5 * float(residual.norm())


@pytest.mark.parametrize("weight", [1e-3, 0.1])
def test_steps_do_not_grow_with_the_condition_of_the_moment(weight):
    taken = []
    for cond in (1e2, 1e5, 1e8):
        problem = make_toy(d=3, n=40, count=6, cond=cond)
        ledger, _ = penalised(problem, weight)
        ledger.append(problem.ids, problem.keys, problem.values)
        ledger.solution()
        taken.append(ledger.snapshot().solved.steps)
    assert max(taken) <= 200, taken  # a gradient method's grow with its root: ten thousand at 1e8


def test_undo_is_never_having_had_it():
    problem = toy()
    ledger, dense = penalised(problem, 0.4, tolerance=1e-24)
    ledger.append(problem.ids, problem.keys, problem.values)
    ledger.solution()
    ledger.drop(["c1", "c4"])
    kept = [0, 2, 3, 5]
    expected = reference_proximal.lasso(problem.base, dense, 1.0, problem.keys[:, kept], problem.values[:, kept], 0.4)
    assert reference.relative(ledger.solution() - problem.base, expected - problem.base) < 1e-9
    ledger.drop(["c0", "c2", "c3", "c5"])
    assert torch.equal(ledger.solution(), problem.base)


def test_a_warm_start_takes_fewer_steps():
    problem = make_toy(d=3, n=10, count=6, cond=1e4)
    cold, _ = penalised(problem, 0.1)
    cold.append(problem.ids, problem.keys, problem.values)
    cold.solution()
    warm, _ = penalised(problem, 0.1)
    warm.append(problem.ids, problem.keys, 0.999 * problem.values + 0.001 * problem.base @ problem.keys)
    warm.solution()
    warm.replace(problem.ids, problem.keys, problem.values)
    warm.solution()
    assert warm.snapshot().solved.steps < cold.snapshot().solved.steps


def test_a_solution_is_found_once():
    problem = toy()
    ledger, _ = penalised(problem, 0.4)
    ledger.append(problem.ids, problem.keys, problem.values)
    first, held = ledger.solution(), ledger.snapshot()
    assert torch.equal(ledger.solution(), first)
    assert ledger.snapshot() is held
    ledger.drop(["c0"])
    assert not torch.equal(ledger.solution(), first)
    ledger.restore(held)
    assert torch.equal(ledger.solution(), first)
    assert ledger.snapshot() is held


@pytest.mark.parametrize("settled", [True, False])
def test_it_resumes_bit_for_bit(settled, tmp_path):
    problem = toy()
    ledger, _ = penalised(problem, 0.4)
    ledger.append(*problem.part([0, 1, 2]))
    ledger.solution()
    if not settled:
        ledger.append(*problem.part([3]))
    torch.save(ledger.state_dict(), tmp_path / "ledger.pt")
    resumed, _ = penalised(problem, 0.4)
    resumed.load_state_dict(torch.load(tmp_path / "ledger.pt", weights_only=True))
    assert torch.equal(resumed.solution(), ledger.solution())
    assert resumed.snapshot().solved.steps == ledger.snapshot().solved.steps
    for one in (ledger, resumed):
        one.append(*problem.part([4, 5]))
    assert torch.equal(resumed.solution(), ledger.solution())


def test_a_damaged_solution_is_named():
    problem = toy()
    ledger, _ = penalised(problem, 0.4)
    ledger.append(problem.ids, problem.keys, problem.values)
    ledger.solution()
    state = ledger.state_dict()
    state["solved"]["update"] = state["solved"]["update"][:, :-1]
    with pytest.raises(StateError, match="saved solution has shape"):
        ledger.load_state_dict(state)


def test_it_is_absorbed_and_deployed_like_any_other():
    problem = toy()
    ledger, dense = penalised(problem, 0.4, tolerance=1e-24)
    ledger.append(*problem.part([0, 1, 2]))
    first = ledger.solution()
    rect = TopKRelativeChange(0.2)
    deployed = next_weight(first, problem.base, problem.base, rect)
    assert torch.equal(deployed - problem.base != 0, rect(first - problem.base, problem.base) != 0)
    ledger.absorb()
    assert torch.equal(ledger.solution(), first)
    ledger.append(*problem.part([3, 4]))
    expected = reference_proximal.lasso(first, dense, 1.0, problem.keys[:, 3:5], problem.values[:, 3:5], 0.4)
    assert reference.relative(ledger.solution() - first, expected - first) < 1e-9


class Ridge(Penalty):
    """g(D) = ½ ‖D‖²: a penalty that is not separable by intent, with a closed form to compare with."""

    def prox(self, point: torch.Tensor, step: float) -> torch.Tensor:
        return point / (1 + step)


class Box(Penalty):
    """g(D) = 0 where no entry is larger than 0.05, else infinite: a constraint."""

    def prox(self, point: torch.Tensor, step: float) -> torch.Tensor:
        return point.clamp(-0.05, 0.05)


class Shifted(Penalty):
    """Smallest at 1: no penalty on an update."""

    def prox(self, point: torch.Tensor, step: float) -> torch.Tensor:
        return (point + step) / (1 + step)


def test_any_convex_penalty_plugs_in():
    problem = toy()
    prior, dense, _ = make_prior("covariance", problem.moment)
    ledger = SiteLedger(problem.base, prior, 1.0, Ridge(tolerance=1e-24))
    ledger.append(problem.ids, problem.keys, problem.values)
    ridged = dense + torch.eye(10, dtype=torch.float64)
    expected = reference.one_time(problem.base, ridged, 1.0, problem.keys, problem.values)
    assert reference.relative(ledger.solution() - problem.base, expected - problem.base) < 1e-9
    box = SiteLedger(problem.base, prior, 1.0, Box())
    box.append(problem.ids, problem.keys, problem.values)
    update = box.solution() - problem.base
    assert float(update.abs().max()) <= 0.05 + 1e-15
    inside = update.abs() < 0.05 - 1e-9
    slope = (update @ problem.keys - (problem.values - problem.base @ problem.keys)) @ problem.keys.mT + update @ dense
    assert float(slope[inside].abs().max()) < 1e-4  # free entries are stationary, others push outward
    assert bool((slope[~inside] * update[~inside] <= 0).all())


def test_what_has_no_closed_form_is_refused():
    problem = toy()
    ledger, _ = penalised(problem, 0.4)
    ledger.append(problem.ids, problem.keys, problem.values)
    with pytest.raises(LedgerError, match="no update of low rank"):
        ledger.delta()
    with pytest.raises(LedgerError, match="no step that is read"):
        ledger.increment(ledger.snapshot(), problem.base)
    prior, _, _ = make_prior("covariance", problem.moment)
    with pytest.raises(LedgerError, match="noise"):
        SiteLedger(problem.base, prior, 0.0, L1Penalty(weight=0.1))
    confined, _, _ = make_prior("null_space", make_toy(n=10, cond=1e4).moment)
    with pytest.raises(LedgerError, match="full rank"):
        SiteLedger(problem.base, confined, 1.0, L1Penalty(weight=0.1))
    with pytest.raises(LedgerError, match="expected a finite number"):
        L1Penalty(weight=-1.0)
    even = Sensitivity(torch.eye(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64))
    with pytest.raises(LedgerError, match="no penalty beside"):
        SensitiveLedger.of(ledger, even)
    moving = SiteLedger(problem.base, prior, 1.0, Shifted())
    moving.append(problem.ids, problem.keys, problem.values)
    with pytest.raises(LedgerError, match="smallest at 0"):
        moving.solution()


def test_giving_up_is_named_and_leaves_the_ledger_as_it_was():
    problem = make_toy(d=3, n=10, count=6, cond=1e6)
    ledger, _ = penalised(problem, 0.01, max_steps=3)
    ledger.append(problem.ids, problem.keys, problem.values)
    before = ledger.snapshot()
    with pytest.raises(LedgerError, match=r"not found in 3 steps.*duality gap"):
        ledger.solution()
    assert ledger.snapshot() is before
