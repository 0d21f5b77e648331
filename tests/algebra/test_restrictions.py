"""Restrictions entry by entry, and the modes that deploy through them."""

import math

import pytest
import torch

from lightning_edit.algebra import (
    SiteLedger,
    SpectrumLimit,
    TopKRelativeChange,
    flush,
    identity,
    next_weight,
)
from lightning_edit.errors import LedgerError
from tests import reference
from tests.algebra.toys import make_prior, make_toy


def pair(scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    update, weight = (torch.randn(9, 14, generator=generator, dtype=torch.float64) for _ in range(2))
    return scale * update, weight


@pytest.mark.parametrize("fraction", [0.004, 0.2, 0.4, 0.999, 1.0])
def test_rect_is_that_of_a_loop(fraction):
    update, weight = pair()
    found = TopKRelativeChange(fraction)(update, weight)
    assert torch.equal(found, torch.from_numpy(reference.rect(update, weight, fraction)))
    assert int((found != 0).sum()) == 126 - int(126 * (1 - fraction))


@pytest.mark.parametrize(
    ("fraction", "kept"), [(0.9, 18), (0.8, 16), (0.7, 14), (0.6, 12), (0.45, 9), (0.05, 1), (0.35, 7)]
)
def test_rect_keeps_the_share_that_is_written_and_not_what_floats_make_of_it(fraction, kept):
    update, weight = (matrix[:4, :5] for matrix in pair())
    found = TopKRelativeChange(fraction)(update, weight)
    assert int((found != 0).sum()) == kept
    assert torch.equal(found, torch.from_numpy(reference.rect(update, weight, fraction)))


def test_rect_with_weights_at_zero_and_ties():
    update, weight = pair()
    weight[0] = 0
    found = TopKRelativeChange(0.2, epsilon=1e-6)(update, weight)
    assert torch.equal(found, torch.from_numpy(reference.rect(update, weight, 0.2, 1e-6)))
    assert torch.equal(TopKRelativeChange(0.2)(torch.ones(4, 5), torch.ones(4, 5)), torch.ones(4, 5))
    assert torch.equal(TopKRelativeChange(0.2)(torch.zeros(4, 5), torch.zeros(4, 5)), torch.zeros(4, 5))


@pytest.mark.parametrize("base", [1.2, 2.0, math.e, None])
@pytest.mark.parametrize("scale", [0.1, 1.5, 20.0])
def test_prune_is_that_of_a_loop(base, scale):
    update, weight = pair(scale)
    limit = SpectrumLimit(variant="linear") if base is None else SpectrumLimit(base)
    assert reference.relative(limit(update, weight), reference.prune(update, weight, base)) < 1e-12


def test_prune_leaves_small_updates_alone_bit_for_bit():
    update, weight = pair(0.05)
    assert SpectrumLimit()(update, weight) is update
    update, weight = pair(0.9)  # longer than sigma in the Frobenius norm, not in the spectral norm
    assert float(update.norm()) > float(torch.linalg.matrix_norm(weight, 2))
    assert torch.equal(SpectrumLimit()(update, 2 * weight), update)


@pytest.mark.parametrize("multiple", [0.5, 3.0])
def test_prune_takes_a_multiple_of_the_largest_singular_value(multiple):
    update, weight = pair(20.0)
    found = SpectrumLimit(multiple=multiple)(update, weight)
    assert reference.relative(found, reference.prune(update, multiple * weight, math.e)) < 1e-12
    assert not torch.equal(found, SpectrumLimit()(update, weight))
    assert SpectrumLimit(multiple=1000.0)(update, weight) is update


def test_restrictions_do_not_write_into_what_they_get():
    update, weight = pair(5.0)
    held = update.clone(), weight.clone()
    for restriction in (identity, TopKRelativeChange(0.3), SpectrumLimit()):
        restriction(update, weight)
        assert torch.equal(update, held[0])
        assert torch.equal(weight, held[1])


@pytest.mark.parametrize(
    "make",
    [
        lambda: TopKRelativeChange(0.0),
        lambda: TopKRelativeChange(1.1),
        lambda: TopKRelativeChange(0.2, epsilon=0.0),
        lambda: SpectrumLimit(1.0),
        lambda: SpectrumLimit(variant="cubic"),
        lambda: SpectrumLimit(multiple=0.0),
    ],
)
def test_bad_options_are_refused(make):
    with pytest.raises(LedgerError, match="expected"):
        make()


def three():
    generator = torch.Generator().manual_seed(4)
    return tuple(torch.randn(9, 14, generator=generator, dtype=torch.float64) for _ in range(3))


def test_modes_are_the_formulas():
    solution, previous, base = three()
    rect, step = TopKRelativeChange(0.3), solution - base

    def restricted(update, weight):
        return torch.from_numpy(reference.rect(update, weight, 0.3))

    feedback = next_weight(solution, previous, base, rect)
    assert torch.allclose(feedback, previous + restricted(solution - previous, previous), rtol=0, atol=1e-15)
    total = next_weight(solution, previous, base, rect, "project_total")
    assert torch.allclose(total, base + restricted(solution - base, base), rtol=0, atol=1e-15)
    none = next_weight(solution, previous, base, rect, "none", step)
    assert torch.allclose(none, previous + restricted(step, previous), rtol=0, atol=1e-15)
    against_base = next_weight(solution, previous, base, rect, reference="original")
    assert torch.allclose(against_base, previous + restricted(solution - previous, base), rtol=0, atol=1e-15)
    assert not torch.equal(against_base, feedback)


@pytest.mark.parametrize("mode", ["feedback", "project_total"])
def test_without_a_restriction_the_solution_is_deployed_bit_for_bit(mode):
    solution, previous, base = three()
    assert torch.equal(next_weight(solution, previous, base, identity, mode), solution)


def test_low_precision_weights_are_computed_in_float64():
    solution, previous, base = three()
    found = next_weight(solution, previous.bfloat16(), base.bfloat16(), TopKRelativeChange(0.3))
    assert found.dtype == torch.float64


def test_an_unknown_mode_and_a_missing_step_are_named():
    solution, previous, base = three()
    with pytest.raises(LedgerError, match="'sideways'; expected 'feedback'"):
        next_weight(solution, previous, base, identity, "sideways")
    with pytest.raises(LedgerError, match="increment"):
        next_weight(solution, previous, base, identity, "none")


def test_project_total_keeps_the_promise_and_feedback_does_not():
    toy = make_toy(count=24)
    ledger, rect = SiteLedger(toy.base, make_prior("covariance", toy.moment)[0]), TopKRelativeChange(0.2)
    total = fed = toy.base
    for i in range(0, 24, 4):
        ledger.append(*toy.part(list(range(i, i + 4))))
        total = next_weight(ledger.solution(), total, toy.base, rect, "project_total")
        fed = next_weight(ledger.solution(), fed, toy.base, rect)
    density = [float(((weight - toy.base) != 0).double().mean()) for weight in (total, fed)]
    assert density[0] == pytest.approx(0.2, abs=0.01)
    assert density[1] > 0.5


def test_flush_delivers_what_rect_held_back():
    toy = make_toy(count=24)
    ledger, rect = SiteLedger(toy.base, make_prior("covariance", toy.moment)[0]), TopKRelativeChange(0.2)
    ledger.append(toy.ids, toy.keys, toy.values)
    solution = ledger.solution()
    deployed = next_weight(solution, toy.base, toy.base, rect)
    flushed = flush(solution, deployed, toy.base, rect)
    assert flushed.pending[0] == pytest.approx(float((solution - deployed).norm()))
    assert all(later < earlier for earlier, later in zip(flushed.pending, flushed.pending[1:], strict=False))
    assert reference.relative(flushed.weight, solution) < 1e-12
    assert flushed.pending[-1] == pytest.approx(float((solution - flushed.weight).norm()), abs=1e-15)


def test_flush_stops_where_rounding_does_and_leaves_the_parameter_there():
    solution, previous, base = three()
    parameter = [previous.bfloat16()]

    def write(weight):
        parameter[0] = weight.bfloat16()
        return parameter[0].double()

    flushed = flush(solution, parameter[0], base, TopKRelativeChange(0.5), write)
    assert torch.equal(parameter[0].double(), flushed.weight)
    assert 0 < flushed.pending[-1] < 0.01 * flushed.pending[0]
    assert float((solution - solution.bfloat16().double()).norm()) == pytest.approx(flushed.pending[-1], rel=1e-6)


def test_flush_takes_back_a_step_that_did_not_help():
    solution, previous, base = three()
    written = []

    def write(weight):
        written.append(weight if len(written) != 2 else weight + 5)  # the third write goes wrong
        return written[-1]

    flushed = flush(solution, previous, base, TopKRelativeChange(0.2), write)
    assert len(written) == 4
    assert torch.equal(written[-1], written[1])
    assert torch.equal(flushed.weight, written[1])
    assert len(flushed.pending) == 3


def test_flush_of_nothing_pending_writes_nothing():
    solution, _, base = three()

    def write(weight):
        raise AssertionError("nothing to write")

    assert torch.equal(flush(solution, solution, base, identity, write).weight, solution)
    assert flush(solution, solution, base, identity, write).pending == [0.0]
