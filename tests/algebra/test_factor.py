"""The small factorisations under the ledger."""

import pytest
import torch

from lightning_edit.algebra import factor, triangles
from lightning_edit.errors import LedgerError
from tests import reference


def columns(n, m, seed=0):
    return torch.randn(n, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("sizes", [(12,), (1, 11), (5, 4, 3), (0, 12)])
def test_appending_is_factoring_at_once(sizes):
    whole, ids = columns(30, 12), [f"c{i}" for i in range(12)]
    lower, done = torch.zeros(0, 0, dtype=torch.float64), 0
    for size in sizes:
        lower = factor.append(lower, whole[:, :done], whole[:, done : done + size], 0.5, ids)
        done += size
    gram = 0.5 * torch.eye(12, dtype=torch.float64) + whole.T @ whole
    expected = reference.cholesky(reference.long(gram))
    assert reference.relative(lower, expected) < 1e-13
    assert torch.equal(factor.truncate(lower, 7), lower[:7, :7])
    assert factor.truncate(lower, 7).is_contiguous()


def test_the_columns_that_explain_another_are_named():
    block = columns(30, 6)
    block = torch.cat([block, (2 * block[:, 1] - block[:, 4])[:, None]], dim=1)
    assert factor.explaining(block) == [1, 4, 6]
    with pytest.raises(LedgerError, match="columns 'b', 'e', 'g' collide"):
        factor.append(torch.zeros(0, 0, dtype=torch.float64), block[:, :0], block, 0.0, list("abcdefg"))


@pytest.mark.parametrize("distance", [0.0, 1e-9, 3e-7])  # at 3e-7 the factorisation itself still succeeds
def test_near_equal_columns_only_matter_without_noise(distance):
    block = columns(30, 3)
    block[:, 2] = block[:, 0] + distance * columns(30, 1, seed=1)[:, 0]
    empty = torch.zeros(0, 0, dtype=torch.float64)
    assert factor.append(empty, block[:, :0], block, 1e-3, list("abc")).shape == (3, 3)
    with pytest.raises(LedgerError, match="'a', 'c' collide"):
        factor.append(empty, block[:, :0], block, 0.0, list("abc"))


def test_columns_that_are_merely_close_are_interpolated():
    block = columns(30, 3)
    block[:, 2] = block[:, 0] + 1e-4 * columns(30, 1, seed=1)[:, 0]
    lower = factor.append(torch.zeros(0, 0, dtype=torch.float64), block[:, :0], block, 0.0, list("abc"))
    assert reference.relative(lower @ lower.T, block.T @ block) < 1e-14


def test_packing_is_exact_and_half_the_size():
    lower = columns(9, 9).tril()
    packed = triangles.pack_triangle(lower)
    assert packed.shape == (45,)
    assert torch.equal(triangles.unpack_triangle(packed, 9), lower)
    symmetric = triangles.symmetric_from_lower(lower)
    assert torch.equal(symmetric, symmetric.T)
    assert torch.equal(symmetric.tril(), lower)


def test_solve_right_is_a_solve():
    gram = columns(20, 8).T @ columns(20, 8)
    rows = columns(3, 8, seed=1)
    lower = triangles.cholesky(gram)
    assert lower is not None
    expected = reference.eliminate(reference.long(gram), reference.long(rows.T)).T
    assert reference.relative(triangles.solve_right(rows, lower), expected) < 1e-12


def test_what_is_not_positive_definite_has_no_factor():
    assert triangles.cholesky(-torch.eye(3, dtype=torch.float64)) is None
    assert triangles.cholesky(torch.full((3, 3), float("nan"), dtype=torch.float64)) is None


def test_the_smallest_eigenvalue_is_found_without_an_eigensolver():
    moment = columns(40, 30, seed=2).T @ columns(40, 30, seed=2)
    scale = moment.diagonal().rsqrt()
    true = float(torch.linalg.eigvalsh(scale[:, None] * moment * scale)[0])
    lower = triangles.cholesky(moment)
    assert lower is not None
    torch.manual_seed(0)
    state = torch.get_rng_state()
    estimate = triangles.smallest_correlation_eigenvalue(lower, moment.diagonal())
    assert true * (1 - 1e-9) <= estimate < 1.5 * true
    assert torch.equal(torch.get_rng_state(), state)
