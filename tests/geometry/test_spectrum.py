"""The spectrum: of matrices whose own is chosen, against the reference, over batches, processes and precisions."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from lightning_edit.errors import GeometryError, StateError
from lightning_edit.geometry import RepresentationSpectrum, Spectrum, effective_rank, spectrum
from lightning_edit.geometry.root import add_rows, empty_root, merge_roots, row_count, row_mean
from lightning_edit.geometry.spectrum import spectrum_of_root
from tests.geometry import reference_geometry as reference
from tests.geometry.synthetic import known, randn


def decades(d: int, span: float) -> torch.Tensor:
    return 50 * torch.logspace(0, -span, d, dtype=torch.float64)


def stream(rows: torch.Tensor, sizes: list[int]) -> Spectrum:
    metric = RepresentationSpectrum(rows.shape[1])
    for batch in rows.split(sizes):
        metric.update(batch)
    return metric.spectrum()


@pytest.mark.parametrize("span", [2, 8, 12])
def test_a_chosen_spectrum_is_found_over_many_decades(span: float) -> None:
    truth = known(400, decades(24, span))
    found = stream(truth.rows, [7, 93, 150, 100, 50])
    error = (found.sigma - truth.sigma).abs()
    assert error.max() < 1e-14 * 400 * truth.sigma[0]  # absolute in sigma_1: no squares have been taken
    assert found.rank == 24
    assert found.condition == pytest.approx(10**span, rel=1e-2 if span == 12 else 1e-4)
    assert torch.allclose(found.mean, truth.mean, atol=1e-12)
    agreement = (found.directions.T @ truth.directions).diagonal().abs()
    assert agreement[:8].min() > 1 - 1e-9


def test_squares_would_have_lost_the_small_ones() -> None:
    truth = known(400, decades(24, 12))
    rows = truth.rows - truth.rows.mean(dim=0)
    squared = torch.linalg.eigvalsh(rows.T @ rows).clamp(min=0).sqrt().flip(0)
    assert (squared[-6:] / truth.sigma[-6:] - 1).abs().min() > 0.5
    assert (stream(truth.rows, [400]).sigma[-6:] / truth.sigma[-6:] - 1).abs().max() < 0.02


@pytest.mark.parametrize("mean", [0.0, 3.0, 1e6])
def test_it_agrees_with_the_reference_whatever_the_mean(mean: float) -> None:
    truth = known(60, decades(9, 3), mean=mean)
    found = stream(truth.rows, [1, 9, 50])
    directions, sigma = reference.svd(truth.rows)
    assert np.allclose(found.sigma, sigma, rtol=1e-10 if mean < 1e6 else 1e-5, atol=0)
    assert np.abs(np.diagonal(found.directions.T.numpy() @ directions)).min() > 1 - 1e-8
    assert found.floor == pytest.approx(reference.floor(sigma, 60), rel=1e-6)
    assert found.effective_rank == pytest.approx(reference.effective_rank(sigma), rel=1e-6)


def test_centring_is_per_feature() -> None:
    rows = known(200, decades(12, 2)).rows
    wrong = rows - rows.mean(dim=1, keepdim=True)  # each sample over its features: the all-ones direction dies
    assert spectrum(rows).condition == pytest.approx(100)
    assert spectrum(rows).rank == 12
    assert spectrum(wrong).rank == 11
    ones = torch.ones(12, dtype=torch.float64) / math.sqrt(12)
    assert (spectrum(wrong).directions[:, -1] @ ones).abs() == pytest.approx(1)


def test_directions_below_the_floor_are_counted_and_left_out() -> None:
    sigma = torch.cat([decades(6, 2), torch.zeros(3, dtype=torch.float64)])
    found = spectrum(known(100, sigma).rows)
    assert found.rank == 6
    assert found.summary()["under_floor"] == 3
    assert found.floor == pytest.approx(np.finfo(np.float64).eps * 50 * 100)
    assert found.summary()["sigma_min"] == pytest.approx(0.5)
    assert found.condition == pytest.approx(100)
    assert found.scale.shape == (6,)
    assert found.basis.shape == (9, 6)
    assert found.effective_rank == pytest.approx(reference.effective_rank(sigma[:6]))


def test_fewer_samples_than_features_leave_directions_without_scale() -> None:
    found = spectrum(randn(5, 8))
    assert found.rank == 4  # one of five goes into the mean
    assert found.summary()["under_floor"] == 4
    lonely = spectrum(randn(1, 8))
    assert lonely.rank == 0
    assert math.isnan(lonely.condition)
    assert lonely.effective_rank == 0


def test_scale_is_the_rms_along_each_direction() -> None:
    truth = known(80, decades(5, 1))
    found = spectrum(truth.rows)
    along = (truth.rows - truth.rows.mean(dim=0)) @ found.basis
    assert torch.allclose(found.scale, along.square().mean(dim=0).sqrt(), rtol=1e-10)


def test_batches_do_not_matter() -> None:
    rows = known(700, decades(10, 6)).rows
    whole = spectrum(rows)
    for sizes in ([700], [1] * 700, [256, 444], [300, 400]):
        assert torch.allclose(stream(rows, sizes).sigma, whole.sigma, rtol=1e-8)


def test_roots_of_several_processes_are_one() -> None:
    rows = known(90, decades(6, 5), mean=1e3).rows
    roots = [add_rows(empty_root(6), part) for part in rows.split([40, 30, 20])]
    merged = merge_roots(torch.stack([*roots, empty_root(6)]))
    assert row_count(merged) == 90
    assert torch.allclose(row_mean(merged), rows.mean(dim=0), rtol=1e-12)
    assert torch.allclose(spectrum_of_root(merged).sigma, spectrum(rows).sigma, rtol=1e-7)
    assert row_count(merge_roots(torch.stack([empty_root(6)] * 2))) == 0
    assert torch.equal(merge_roots(torch.stack([empty_root(6), roots[0]])), roots[0])


def test_the_metric_survives_forward_reset_half_precision_and_gathering() -> None:
    rows = known(500, decades(4, 3)).rows
    metric = RepresentationSpectrum(4)
    assert metric(rows[:300])["samples"] == 300  # forward gives the batch's own value
    assert metric(rows[300:])["samples"] == 200
    assert metric.compute()["samples"] == 500
    before = metric.spectrum().sigma
    metric.to(torch.bfloat16)
    assert metric.root.dtype == torch.float64
    assert torch.equal(metric.spectrum().sigma, before)
    assert torch.allclose(before, spectrum(rows).sigma, rtol=1e-9)
    metric.reset()
    with pytest.raises(GeometryError, match="No representation"):
        metric.spectrum()


def gather(states: list[dict[str, Any]]) -> Any:
    """A stand-in for torch.distributed: everybody's value of the state that is asked for."""

    def find(value: torch.Tensor, group: Any = None) -> list[torch.Tensor]:
        name = next(name for name, mine in states[0].items() if mine.data_ptr() == value.data_ptr() or mine is value)
        return [state[name] for state in states]

    return find


def test_ranks_are_gathered_without_losing_what_waits() -> None:
    rows = known(120, decades(4, 3)).rows
    metrics = [RepresentationSpectrum(4), RepresentationSpectrum(4)]
    metrics[0].update(rows[:70])
    metrics[1].update(rows[70:])
    for metric in metrics:
        metric._fold()
    states = [{"root": metric.root, "pending": metric.pending[0]} for metric in metrics]
    metrics[0]._sync_dist(gather(states))
    assert metrics[0].compute()["samples"] == 120
    assert torch.allclose(metrics[0].spectrum().sigma, spectrum(rows).sigma, rtol=1e-9)


def test_rounding_of_the_models_precision_is_told_from_signal() -> None:
    sigma = torch.cat([decades(6, 1), 1e-4 * decades(6, 1)])
    truth = known(4000, sigma, mean=0.0)
    rounded = spectrum(truth.rows.to(torch.bfloat16))
    assert rounded.rank == 12  # far above what float64 resolves
    assert rounded.summary(torch.bfloat16)["under_rounding"] == 6
    assert spectrum(truth.rows).summary(torch.float64)["under_rounding"] == 0
    noise = rounded.sigma[6:]
    assert noise.max() < rounded.rounding(torch.bfloat16) < 10 * noise.max()


def test_effective_rank_of_equal_and_of_one() -> None:
    assert effective_rank(torch.ones(7)) == pytest.approx(7)
    assert effective_rank(torch.tensor([3.0, 0.0])) == pytest.approx(1)


def test_state_is_read_back_bit_for_bit_and_checked() -> None:
    one = spectrum(randn(30, 5))
    other = Spectrum.from_state(one.state_dict())
    assert torch.equal(one.sigma, other.sigma)
    assert torch.equal(one.directions, other.directions)
    assert (one.count, one.floor) == (other.count, other.floor)
    with pytest.raises(StateError, match="Measure it again"):
        Spectrum.from_state({**one.state_dict(), "mean": torch.zeros(3)})


def test_wrong_rows_are_named() -> None:
    metric = RepresentationSpectrum(4)
    with pytest.raises(GeometryError, match=r"expected \(..., 4\)"):
        metric.update(torch.zeros(2, 3))
    with pytest.raises(GeometryError, match="1 of 2 representations are not finite"):
        metric.update(torch.tensor([[0.0, 0, 0, 0], [1, float("inf"), 0, 0]]))
    with pytest.raises(GeometryError, match="int64"):
        metric.update(torch.zeros(2, 4, dtype=torch.long))
    with pytest.raises(GeometryError, match="at least one feature"):
        empty_root(0)
    with pytest.raises(GeometryError, match="No representation"):
        metric.compute()
