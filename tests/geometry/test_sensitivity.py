"""The sensitivity-aware solution: the minimiser of its objective, and the ledger's own formula where it must be."""

import math
from typing import Any

import pytest
import torch

from lightning_edit.algebra import SiteLedger
from lightning_edit.algebra.sensitivity import (
    SensitiveForm,
    Sensitivity,
    penalty,
    sensitive_solution,
    sensitivity_weights,
)
from lightning_edit.errors import LedgerError, StateError
from lightning_edit.geometry import relative_change, spectrum
from tests.algebra.toys import KINDS, make_prior, make_toy
from tests.geometry import reference_geometry as reference
from tests.geometry.synthetic import known, orthonormal, randn
from tests.reference import relative


def spread(d: int, decades: float = 4.0) -> Sensitivity:
    weights = torch.logspace(decades / 2, -decades / 2, d, dtype=torch.float64)
    return Sensitivity(orthonormal(d, d, seed=7), weights)


@pytest.mark.parametrize("noise", [0.3, 1.0])
@pytest.mark.parametrize("kind", ["covariance", "ridge"])
def test_it_is_the_minimiser_of_the_weighted_objective(kind: str, noise: float) -> None:
    toy = make_toy(d=6, n=14, count=5, cond=1e3)
    prior, precision, _ = make_prior(kind, toy.moment)
    chosen = spread(6)
    found = sensitive_solution(toy.base, prior, noise, toy.keys, toy.values, chosen) - toy.base
    residual = toy.values - toy.base @ toy.keys
    dense = reference.sensitive_update(chosen.directions, chosen.weights, precision, noise, toy.keys, residual)
    assert relative(found, dense) < 1e-9


def test_more_keys_than_inner_width() -> None:
    toy = make_toy(d=4, n=8, count=20, cond=1e2)
    prior, precision, _ = make_prior("covariance", toy.moment)
    chosen = spread(4)
    found = sensitive_solution(toy.base, prior, 1.0, toy.keys, toy.values, chosen) - toy.base
    residual = toy.values - toy.base @ toy.keys
    dense = reference.sensitive_update(chosen.directions, chosen.weights, precision, 1.0, toy.keys, residual)
    assert relative(found, dense) < 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_equal_weights_are_the_ledger(kind: str) -> None:
    toy = make_toy()
    prior, _, _ = make_prior(kind, toy.moment)
    ledger = SiteLedger(toy.base, prior, 0.7)
    ledger.append(toy.ids, toy.keys, toy.values)
    plain = Sensitivity(orthonormal(20, 20), torch.ones(20, dtype=torch.float64))
    found = sensitive_solution(toy.base, prior, 0.7, toy.keys, toy.values, plain)
    assert torch.allclose(found, ledger.solution(), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_each_row_is_the_ledgers_formula_with_a_noise_of_its_own(kind: str) -> None:
    toy = make_toy(d=8, n=30, count=9)
    prior, _, _ = make_prior(kind, toy.moment)
    chosen = spread(8)
    found = sensitive_solution(toy.base, prior, 0.5, toy.keys, toy.values, chosen)
    for k in range(8):
        row = chosen.directions[:, k : k + 1].T
        ledger = SiteLedger(row @ toy.base, prior, 0.5 * float(chosen.weights[k]))
        ledger.append(toy.ids, toy.keys, row @ toy.values)
        assert torch.allclose(row @ found, ledger.solution(), rtol=1e-8, atol=1e-9)


def test_order_and_batching_of_columns_do_not_matter_and_no_column_changes_nothing() -> None:
    toy = make_toy(d=8, n=30, count=9)
    prior, _, _ = make_prior("covariance", toy.moment)
    chosen = spread(8)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    one = sensitive_solution(toy.base, prior, 1.0, toy.keys, toy.values, chosen)
    other = sensitive_solution(toy.base, prior, 1.0, toy.keys[:, order], toy.values[:, order], chosen)
    assert torch.allclose(one, other, rtol=1e-10, atol=1e-11)
    empty = sensitive_solution(toy.base, prior, 1.0, toy.keys[:, :0], toy.values[:, :0], chosen)
    assert torch.equal(empty, toy.base)


def test_the_update_is_an_adapter() -> None:
    toy = make_toy(d=8, n=30, count=5)
    prior, _, _ = make_prior("covariance", toy.moment)
    form = SensitiveForm.build(prior, 1.0, toy.keys, spread(8))
    residual = toy.values - toy.base @ toy.keys
    assert torch.allclose(form.coefficients(residual) @ form.response.T, form.correction(residual))
    assert torch.linalg.matrix_rank(form.correction(residual)) == 5
    assert torch.allclose(form.response, prior.apply(toy.keys))
    gram = toy.keys.T @ form.response
    assert torch.allclose(form.vectors * form.values @ form.vectors.T, gram, rtol=1e-9, atol=1e-9)


def test_colliding_keys_are_no_trouble() -> None:
    toy = make_toy(d=6, n=20, count=4)
    keys = torch.cat([toy.keys, toy.keys[:, :1]], dim=1)
    values = torch.cat([toy.values, toy.values[:, :1]], dim=1)
    prior, precision, _ = make_prior("covariance", toy.moment)
    chosen = spread(6)
    found = sensitive_solution(toy.base, prior, 1.0, keys, values, chosen) - toy.base
    residual = values - toy.base @ keys
    dense = reference.sensitive_update(chosen.directions, chosen.weights, precision, 1.0, keys, residual)
    assert relative(found, dense) < 1e-9


def test_fragile_directions_move_less_and_others_more() -> None:
    toy = make_toy(d=8, n=30, count=9)
    prior, _, _ = make_prior("covariance", toy.moment)
    chosen = spread(8)
    plain = Sensitivity(chosen.directions, torch.ones(8, dtype=torch.float64))
    moved = {}
    for name, sensitivity in (("plain", plain), ("aware", chosen)):
        update = sensitive_solution(toy.base, prior, 1.0, toy.keys, toy.values, sensitivity) - toy.base
        moved[name] = (chosen.directions.T @ update).norm(dim=1)
    assert moved["aware"][0] < 0.5 * moved["plain"][0]  # the dearest
    assert moved["aware"][-1] > moved["plain"][-1]  # the cheapest


def test_the_penalty_is_the_sum_of_expected_squared_rates() -> None:
    keys = known(500, torch.logspace(1, -1, 12, dtype=torch.float64)).rows  # ordinary text
    base, update = randn(5, 12, seed=1), 0.01 * randn(5, 12, seed=2)
    outputs = spectrum(keys @ base.T)
    raw = Sensitivity(outputs.directions, outputs.count / outputs.sigma**2)
    moment = keys.T @ keys / len(keys)
    expected = (relative_change(keys @ update.T, outputs, "rms") ** 2).sum()
    assert penalty(update, 3.0 * moment, raw) == pytest.approx(3 * float(expected), rel=1e-9)


def test_directions_come_from_the_keys_moments_without_another_pass() -> None:
    keys = known(500, torch.logspace(1, -1, 12, dtype=torch.float64)).rows
    base = randn(5, 12, seed=1)
    outputs = spectrum(keys @ base.T)
    found = Sensitivity.from_moments(base, keys.T @ keys / 500, keys.mean(dim=0), exponent=1.0, cap=math.inf)
    expected = sensitivity_weights((outputs.sigma.flip(0) ** 2) / 500, cap=math.inf)
    assert torch.allclose(found.weights, expected, rtol=1e-6)
    agreement = (found.directions.flip(1).T @ outputs.directions).diagonal().abs()
    assert agreement.min() > 1 - 1e-8


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("cap", [1.0, 3.0, 1e3, math.inf])
def test_weights_have_geometric_mean_one_and_respect_the_cap(exponent: float, cap: float) -> None:
    variances = torch.logspace(3, -11, 40, dtype=torch.float64)  # fourteen decades
    weights = sensitivity_weights(variances, exponent, cap)
    assert float(weights.log().mean()) == pytest.approx(0, abs=1e-10)
    assert weights.max() <= cap * (1 + 1e-12)
    assert bool((weights.diff() >= 0).all())
    free = weights < cap * (1 - 1e-9)
    if exponent and cap > 1 and free.sum() > 1:  # below the cap the ratios are exact
        ratio = weights[free] * variances[free] ** exponent
        assert torch.allclose(ratio, ratio[0].expand_as(ratio))
    if exponent == 0 or cap == 1:
        assert torch.allclose(weights, torch.ones(40, dtype=torch.float64))


def test_directions_that_text_never_uses_cost_the_most_and_no_more() -> None:
    weights = sensitivity_weights(torch.tensor([1.0, 1e-3, 0.0, -1e-30]), cap=math.inf)
    assert bool(torch.isfinite(weights).all())
    assert weights[2] == weights[3] == weights.max()


def test_wrong_use_is_named() -> None:
    toy = make_toy(d=6, n=20, count=4)
    prior, _, _ = make_prior("covariance", toy.moment)
    arguments: dict[str, Any] = {"base": toy.base, "prior": prior, "noise": 1.0, "keys": toy.keys}
    arguments |= {"values": toy.values, "sensitivity": spread(6)}
    for change, message in [
        ({"noise": 0.0}, "weights of directions change nothing"),
        ({"keys": toy.keys[:5]}, "matrix of keys"),
        ({"values": toy.values[:, :2]}, "matrix of values"),
        ({"sensitivity": spread(5)}, "base weight"),
        ({"keys": toy.keys * math.nan}, "not finite"),
    ]:
        with pytest.raises(LedgerError, match=message):
            sensitive_solution(**{**arguments, **change})
    with pytest.raises(LedgerError, match="residual has shape"):
        SensitiveForm.build(prior, 1.0, toy.keys, spread(6)).coefficients(toy.values[:3])
    with pytest.raises(LedgerError, match="cap >= 1"):
        sensitivity_weights(torch.ones(3), cap=0.5)
    with pytest.raises(LedgerError, match="exponent >= 0"):
        sensitivity_weights(torch.ones(3), exponent=-1)
    with pytest.raises(LedgerError, match="largest variance"):
        sensitivity_weights(torch.zeros(3))


def test_state_is_read_back_bit_for_bit() -> None:
    one = spread(6)
    other = Sensitivity.from_state(one.state_dict())
    assert torch.equal(one.directions, other.directions)
    assert torch.equal(one.weights, other.weights)
    with pytest.raises(StateError, match="expected"):
        Sensitivity.from_state({**one.state_dict(), "weights": torch.ones(3)})
