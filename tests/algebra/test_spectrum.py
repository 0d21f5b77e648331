"""The upper end of a spectrum and the k-th smallest number, against whole decompositions and whole sorts."""

import math

import pytest
import torch
from torch import Tensor

from lightning_edit.algebra import SpectrumLimit, TopKRelativeChange
from lightning_edit.algebra.selection import kth_smallest
from lightning_edit.algebra.spectrum import largest_singular_value, svd_of_product, triplets_above
from tests import reference

ROWS, COLUMNS = 200, 230  # large enough not to be decomposed at once


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_spectrum(values: Tensor) -> Tensor:
    left, right = torch.linalg.qr(randn(ROWS, ROWS)).Q, torch.linalg.qr(randn(COLUMNS, ROWS, seed=1)).Q
    return (left[:, : len(values)] * values) @ right[:, : len(values)].mT


SPECTRA = {
    "low rank": torch.linspace(9, 1, 20, dtype=torch.float64),
    "exhausted at a block's end": torch.linspace(9, 3, 24, dtype=torch.float64),
    "many equal": torch.cat([torch.full((40,), 5.0), torch.logspace(0, -6, 100)]).double(),
    "all equal": torch.full((ROWS,), 4.0, dtype=torch.float64),
    "falling": torch.logspace(1, -3, ROWS, dtype=torch.float64),
    "steep": torch.logspace(8, -8, ROWS, dtype=torch.float64),
    "nothing above": torch.linspace(1.9, 0, ROWS, dtype=torch.float64),
    "just above": torch.tensor([2.0 + 1e-9, 2.0 - 1e-9, 0.5], dtype=torch.float64),
}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("noise", [0.0, 1e-8])
def test_triplets_above_a_limit_are_those_of_a_whole_decomposition(name, noise):
    matrix = with_spectrum(SPECTRA[name]) + noise * randn(ROWS, COLUMNS, seed=2)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    above = values > 2.0
    expected = (left[:, above] * (values[above] - 2.0)) @ right[above]
    for found, sign in (
        (triplets_above(matrix, torch.tensor(2.0)), "wide"),
        (triplets_above(matrix.mT, torch.tensor(2.0)), "tall"),
    ):
        part = (found.left * (found.values - 2.0)) @ found.right
        assert float((part - (expected if sign == "wide" else expected.mT)).norm()) <= 1e-11 * float(values[0]), sign
        assert torch.allclose(found.values, values[above], rtol=0, atol=1e-11 * float(values[0]))


@pytest.mark.parametrize("name", SPECTRA)
def test_the_largest_singular_value(name):
    matrix = with_spectrum(SPECTRA[name])
    assert float(largest_singular_value(matrix)) == pytest.approx(float(SPECTRA[name].max()), rel=1e-10)
    assert float(largest_singular_value(matrix.mT)) == pytest.approx(float(SPECTRA[name].max()), rel=1e-10)


def test_a_matrix_of_zeros_has_nothing_above():
    zeros = torch.zeros(ROWS, COLUMNS, dtype=torch.float64)
    assert float(largest_singular_value(zeros)) == 0.0
    assert len(triplets_above(zeros, torch.tensor(0.5)).values) == 0


def test_the_whole_matrix_is_not_decomposed_where_the_update_is_of_low_rank(monkeypatch):
    update, weight = randn(ROWS, 12) @ randn(12, COLUMNS, seed=1), randn(ROWS, COLUMNS, seed=2)
    weight = weight + 200 * torch.outer(randn(ROWS), randn(COLUMNS)) / 200  # real weights have an outlier, too
    sizes, whole, values = [], torch.linalg.svd, torch.linalg.svdvals
    monkeypatch.setattr(torch.linalg, "svd", lambda m, **k: sizes.append(min(m.shape)) or whole(m, **k))
    monkeypatch.setattr(torch.linalg, "svdvals", lambda m: sizes.append(min(m.shape)) or values(m))
    found = SpectrumLimit()(update, weight)
    assert sizes
    assert max(sizes) <= 100
    monkeypatch.undo()
    assert reference.relative(found, reference.prune(update, weight, math.e)) < 1e-10
    assert reference.relative(found, update) > 0.01


@pytest.mark.parametrize("base", [1.2, math.e, None])
@pytest.mark.parametrize("noise", [0.0, 1e-8])
def test_prune_of_a_large_update_is_that_of_a_loop(base, noise):
    update = randn(ROWS, 9) @ randn(9, COLUMNS, seed=1) + noise * randn(ROWS, COLUMNS, seed=2)
    weight = randn(ROWS, COLUMNS, seed=3)
    limit = SpectrumLimit(variant="linear") if base is None else SpectrumLimit(base)
    assert reference.relative(limit(update, weight), reference.prune(update, weight, base)) < 1e-10


def test_svd_of_a_product_of_thin_factors():
    left, right = randn(ROWS, 7), randn(COLUMNS, 7, seed=1)
    found = svd_of_product(left, right)
    assert reference.relative((found.left * found.values) @ found.right, left @ right.mT) < 1e-13
    assert torch.allclose(found.values, torch.linalg.svdvals(left @ right.mT)[:7])


@pytest.mark.parametrize("count", [1, 7, 1 << 19])
def test_the_kth_smallest_is_that_of_a_sort(count):
    numbers = randn(count).abs() / (randn(count, seed=1).abs() + 1e-8)
    numbers[:: max(count // 5, 2)] = 0.0
    numbers[1 :: max(count // 3, 2)] = 1.5
    ordered = numbers.sort().values
    for k in {0, count // 5, count // 2, int(count * 0.8), count - 1}:
        assert torch.equal(kth_smallest(numbers, k), ordered[k])


def test_the_kth_smallest_across_all_magnitudes():
    numbers = torch.cat([torch.logspace(-320, 308, 4000, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)])
    shuffled = numbers[torch.randperm(len(numbers), generator=torch.Generator().manual_seed(0))].reshape(45, 89)
    ordered = numbers.sort().values
    for k in range(0, len(numbers), 401):
        assert torch.equal(kth_smallest(shuffled, k), ordered[k])


def test_rect_of_a_large_update_keeps_the_share_it_promises():
    update, weight = randn(ROWS, COLUMNS), randn(ROWS, COLUMNS, seed=1)
    kept = TopKRelativeChange(0.2)(update, weight)
    change = update.abs() / (weight.abs() + 1e-8)
    where = kept != 0
    assert int(where.sum()) == ROWS * COLUMNS - int(ROWS * COLUMNS * 0.8)
    assert float(change[where].min()) > float(change[~where].max())
    assert torch.equal(kept[where], update[where])
