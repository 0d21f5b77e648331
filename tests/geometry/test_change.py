"""What an edit does to representations: rates, norms and turned subspaces, against the reference."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from lightning_edit.errors import GeometryError
from lightning_edit.geometry import (
    PerturbationNorm,
    RelativeChangeRate,
    SubspaceStability,
    across_sites,
    components,
    gap,
    perturbation_norms,
    principal_cosines,
    relative_change,
    spectrum,
    stability,
    summarise,
)
from lightning_edit.geometry.perturbation import empty_moments, merge_moments, moments_of, norm_summary
from tests.geometry import reference_geometry as reference
from tests.geometry.synthetic import known, orthonormal, randn

SIGMA = 20 * torch.logspace(0, -4, 8, dtype=torch.float64)


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    before = known(50, SIGMA).rows
    return before, before + 0.01 * randn(50, 8, seed=9) + 0.02


@pytest.mark.parametrize("aggregation", ["mean_abs", "rms"])
def test_rates_agree_with_the_reference_in_a_stream(pair: Any, aggregation: Any) -> None:
    before, after = pair
    expected = reference.relative_change(before, after, aggregation)
    basis = spectrum(before)
    assert np.allclose(relative_change(after - before, basis, aggregation), expected, rtol=1e-8)
    metric = RelativeChangeRate(basis, aggregation)
    for part in (slice(0, 1), slice(1, 20), slice(20, 50)):
        metric.update(after[part], before[part])
    assert np.allclose(metric.rates(), expected, rtol=1e-8)
    found = metric.compute()
    assert found[f"R_{aggregation}_median"].item() == pytest.approx(reference.quantile(expected, 0.5))
    assert found[f"R_{aggregation}_q90"].item() == pytest.approx(reference.quantile(expected, 0.9))
    assert found[f"R_{aggregation}_q95"].item() == pytest.approx(reference.quantile(expected, 0.95))
    assert found[f"R_{aggregation}_trimmed_mean"].item() == pytest.approx(reference.trimmed_mean(expected, 0.1))
    assert found[f"R_{aggregation}_mean"].item() == pytest.approx(expected.mean())
    assert found[f"R_{aggregation}_max"].item() == pytest.approx(expected.max())
    assert found[f"R_{aggregation}_share_above_1"].item() == pytest.approx((expected > 1).mean())
    assert 0 < found[f"R_{aggregation}_share_above_1"] < 1


def test_a_push_of_known_size_along_one_direction_is_that_rate() -> None:
    truth = known(64, SIGMA)
    basis = spectrum(truth.rows)
    for k in range(8):
        size = 3.0 * float(SIGMA[k]) / math.sqrt(64)  # three times the direction's own RMS
        changes = (size * truth.directions[:, k]).expand(64, 8)
        found = relative_change(changes, basis)
        assert found[k] == pytest.approx(3, rel=1e-6)
        assert np.delete(found.numpy(), k).max() < 1e-5
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(32)[:, None]
    flipping = signs * (float(SIGMA[2]) / 8 * truth.directions[:, 2])
    assert relative_change(flipping, basis)[2] == pytest.approx(1, rel=1e-6)  # absolute: signs do not cancel


def test_equal_pushes_are_amplified_where_directions_are_weak() -> None:
    basis = spectrum(known(64, SIGMA).rows)
    changes = 1e-3 * (basis.directions.sum(dim=1)).expand(64, 8)
    assert np.allclose(relative_change(changes, basis), 1e-3 * 8 / SIGMA, rtol=1e-6)  # Theorem 4.5


def test_the_two_aggregations_differ_and_say_which_is_which(pair: Any) -> None:
    before, after = pair
    basis = spectrum(before)
    mean_abs, rms = (relative_change(after - before, basis, how) for how in ("mean_abs", "rms"))
    assert bool((rms >= mean_abs).all())  # Jensen
    assert not torch.allclose(rms, mean_abs, rtol=1e-3)
    assert all(name.startswith("R_rms_") for name in _rates(basis, "rms", pair).compute())
    with pytest.raises(GeometryError, match="expected one of mean_abs, rms"):
        RelativeChangeRate(basis, "mean")  # type: ignore[arg-type]


def test_expected_squared_rate_is_the_output_moment_over_sigma(pair: Any) -> None:
    before, after = pair
    basis = spectrum(before)
    moment = (after - before).T @ (after - before) / 50  # of the change
    along = (basis.basis.T @ moment @ basis.basis).diagonal()
    assert torch.allclose(relative_change(after - before, basis, "rms") ** 2, along / basis.scale**2)


def test_no_change_is_exactly_zero(pair: Any) -> None:
    before, _ = pair
    metric = _rates(spectrum(before), "mean_abs", (before, before.clone()))
    assert all(value == 0 for value in metric.compute().values())
    norms = PerturbationNorm()
    norms.update(before, before)
    assert all(value == 0 for value in norms.compute().values())


def test_directions_below_the_floor_have_no_rate() -> None:
    sigma = torch.cat([SIGMA, torch.zeros(2, dtype=torch.float64)])
    basis = spectrum(known(64, sigma).rows)
    changes = randn(5, 10)
    assert components(changes, basis).shape == (5, 8)
    assert relative_change(changes, basis).shape == (8,)
    assert RelativeChangeRate(basis).absolute.shape == (8,)
    with pytest.raises(GeometryError, match="no direction above the floor"):
        RelativeChangeRate(spectrum(torch.ones(3, 4)))


def test_a_summary_tells_when_one_direction_carries_it_all() -> None:
    values = torch.cat([torch.full((99,), 0.1), torch.tensor([1e5])])
    found = summarise(values)
    assert found["top_share"] > 0.9999
    assert found["median"] == pytest.approx(0.1)
    assert found["trimmed_mean"] == pytest.approx(0.1)
    assert found["mean"] > 999
    assert (found["min"], found["max"]) == (pytest.approx(0.1), 1e5)
    assert summarise(torch.zeros(4))["top_share"] == 0
    with pytest.raises(GeometryError, match="at least one"):
        summarise(torch.zeros(0))
    with pytest.raises(GeometryError, match="trim"):
        summarise(values, trim=0.5)


@pytest.mark.parametrize(("how", "expected"), [("mean", 3.0), ("max", 6.0), ("median", 2.0)])
def test_layers_of_a_step_come_together(how: Any, expected: float) -> None:
    assert across_sites([1.0, 2.0, 6.0], how) == expected
    with pytest.raises(GeometryError, match="no site"):
        across_sites([], how)


def test_both_sides_must_be_the_same_samples_in_one_precision(pair: Any) -> None:
    before, after = pair
    metric = RelativeChangeRate(spectrum(before))
    with pytest.raises(GeometryError, match="same samples in the same precision"):
        metric.update(after[:4], before[:5])
    with pytest.raises(GeometryError, match="same samples in the same precision"):
        metric.update(after.float(), before)
    with pytest.raises(GeometryError, match="No change has been seen"):
        metric.rates()
    with pytest.raises(GeometryError, match="No change has been seen"):
        norm_summary(PerturbationNorm().moments)


def test_norms_agree_with_the_reference_over_batches_and_processes(pair: Any) -> None:
    before, after = pair
    expected = reference.norms(before, after)
    assert perturbation_norms(after - before) == pytest.approx(expected)
    metric = PerturbationNorm()
    for part in (slice(0, 3), slice(3, 30), slice(30, 50)):
        metric.update(after[part], before[part])
    assert {name: value.item() for name, value in metric.compute().items()} == pytest.approx(expected)
    parts = [moments_of((after - before)[part].norm(dim=1)) for part in (slice(0, 10), slice(10, 50))]
    merged = merge_moments(torch.stack([empty_moments(), *parts]))
    assert merged[1] == pytest.approx(expected["mean"])
    assert math.sqrt(merged[2] / 50) == pytest.approx(expected["std"])


def test_cosines_agree_with_the_definition(pair: Any) -> None:
    before, after = pair
    for k in (1, 2, 4):
        found = principal_cosines(spectrum(before), spectrum(after), k)
        assert np.allclose(found, reference.cosines(before, after, k), atol=1e-6)
    same = principal_cosines(spectrum(before), spectrum(before), 3)
    assert torch.allclose(same, torch.ones(3, dtype=torch.float64), atol=1e-12)
    assert same.max() <= 1


def test_one_lost_direction_brings_the_smallest_cosine_to_zero_and_not_the_mean() -> None:
    directions = orthonormal(8, 8)
    rows = torch.linalg.qr(randn(64, 8) - randn(64, 8).mean(dim=0)).Q
    rows = torch.linalg.qr(rows - rows.mean(dim=0)).Q
    swapped = directions[:, [0, 1, 2, 7, 4, 5, 6, 3]]  # the fourth direction changes places with the eighth
    before, after = spectrum((rows * SIGMA) @ directions.T), spectrum((rows * SIGMA) @ swapped.T)
    cosines = principal_cosines(before, after, 4)
    assert cosines[:3].min() > 1 - 1e-9
    assert cosines[3] < 1e-6
    assert cosines.mean() == pytest.approx(0.75)
    found = stability(before, after, sizes=(3, 4, 5))
    assert set(found) == {"cos_min_k3", "cos_mean_k3", "gap_k3", "cos_min_k4", "cos_mean_k4", "gap_k4"}  # 2 k <= d
    assert found["gap_k3"] == pytest.approx(1 - float(SIGMA[3] / SIGMA[2]))
    assert gap(before, 3) == found["gap_k3"]


def test_subspaces_that_must_meet_or_point_anywhere_are_refused() -> None:
    one = spectrum(known(64, SIGMA).rows)
    with pytest.raises(GeometryError, match="2 k <= d"):
        principal_cosines(one, one, 5)
    few = spectrum(randn(3, 8))
    with pytest.raises(GeometryError, match="2 directions above the floor"):
        principal_cosines(one, few, 3)
    with pytest.raises(GeometryError, match="8 and 4 features"):
        principal_cosines(one, spectrum(randn(9, 4)), 1)
    with pytest.raises(GeometryError, match="1 <= k < d"):
        gap(one, 8)


def test_stability_streams(pair: Any) -> None:
    before, after = pair
    metric = SubspaceStability(spectrum(before), sizes=(1, 4))
    metric.update(after[:20])
    metric.update(after[20:])
    expected = stability(spectrum(before), spectrum(after), (1, 4))
    assert {name: value.item() for name, value in metric.compute().items()} == pytest.approx(expected)
    assert [len(cosines) for cosines in metric.cosines().values()] == [1, 4]


def _rates(basis: Any, aggregation: Any, pair: Any) -> RelativeChangeRate:
    metric = RelativeChangeRate(basis, aggregation)
    metric.update(pair[1], pair[0])
    return metric
