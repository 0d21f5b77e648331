"""Streaming moments against a loop over tokens."""

import pytest
import torch

from lightning_edit.algebra import KeyCovariance
from lightning_edit.algebra import moments as module
from lightning_edit.errors import StateError, StatisticsError
from tests import reference


def keys(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) + 0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_moments_are_those_of_a_loop(dtype):
    batch = (keys(3, 7, 5).double() / 3).to(dtype)  # thirds need all the bits that the type has
    covariance = KeyCovariance(5)
    for part in batch:
        covariance.update(part)
    moment, mean, count = reference.moment(batch.double())
    assert covariance.count == count == 21
    assert covariance.moment.dtype == covariance.mean.dtype == torch.float64
    assert reference.relative(covariance.moment, moment) < 1e-14
    assert reference.relative(covariance.mean, mean) < 1e-14
    assert torch.equal(covariance.moment, covariance.moment.T)


def test_float32_keys_are_summed_in_float64():
    rows = keys(4000, 3) * torch.tensor([1.0, 1e-4, 1e4])
    covariance = KeyCovariance(3)
    covariance.update(rows)
    assert reference.relative(covariance.moment[1, 1], reference.moment(rows.double())[0][1, 1]) < 1e-13


def test_chunks_and_blocks_change_nothing(monkeypatch):
    rows = keys(300, 40)
    whole = KeyCovariance(40)
    whole.update(rows)
    monkeypatch.setattr(module, "_CHUNK_BYTES", 8 * 40 * 64)
    monkeypatch.setattr(module, "_BLOCK", 16)
    pieces = KeyCovariance(40)
    pieces.update(rows)
    assert reference.relative(pieces.moment, whole.moment) < 1e-14
    assert reference.relative(pieces.moment, reference.moment(rows.double())[0]) < 1e-14


def test_padding_does_not_count_even_when_it_is_not_finite():
    batch = keys(2, 4, 3)
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    batch[0, 3], batch[1, 2] = float("nan"), float("inf")
    covariance = KeyCovariance(3)
    covariance.update(batch, mask)
    moment, mean, count = reference.moment(batch.double(), mask)
    assert covariance.count == count == 4
    assert reference.relative(covariance.moment, moment) < 1e-14
    assert reference.relative(covariance.mean, mean) < 1e-14


def test_merging_processes_equals_one():
    rows = keys(50, 6)
    one, a, b = KeyCovariance(6), KeyCovariance(6), KeyCovariance(6)
    one.update(rows)
    a.update(rows[:20])
    b.update(rows[20:])
    a.merge(b)
    assert a.count == 50
    assert reference.relative(a.moment, one.moment) < 1e-14
    assert reference.relative(a.mean, one.mean) < 1e-14
    assert b.count == 30
    with pytest.raises(StatisticsError, match="length 7 cannot be merged"):
        a.merge(KeyCovariance(7))


def test_failed_updates_leave_everything_as_it_was():
    covariance = KeyCovariance(6)
    covariance.update(keys(10, 6))
    before = covariance.state_dict()
    bad = keys(5, 6)
    bad[3, 2] = float("nan")
    for arguments, message in [
        ((bad,), "1 of 5 keys are not finite"),
        ((keys(5, 7),), r"shape \(5, 7\); expected \(..., 6\)"),
        ((keys(5, 6), torch.ones(4)), r"mask has shape \(4,\); expected \(5,\)"),
    ]:
        with pytest.raises(StatisticsError, match=message):
            covariance.update(*arguments)
    after = covariance.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in ("sum", "second"))
    assert before["count"] == after["count"]


def test_state_resumes_bit_for_bit():
    straight, first = KeyCovariance(6), KeyCovariance(6)
    for covariance in (straight, first):
        covariance.update(keys(10, 6))
    saved = first.state_dict()
    first.update(keys(3, 6, seed=9))  # the saved state must not follow
    second = KeyCovariance(6)
    second.load_state_dict(saved)
    for covariance in (straight, second):
        covariance.update(keys(11, 6, seed=1))
    assert straight.count == second.count
    assert torch.equal(straight.moment, second.moment)
    assert torch.equal(straight.mean, second.mean)


def test_state_of_other_keys_is_refused():
    state = KeyCovariance(6).state_dict()
    with pytest.raises(StateError, match="length 6; expected 7"):
        KeyCovariance(7).load_state_dict(state)
    with pytest.raises(StateError, match="Collect them again"):
        KeyCovariance(6).load_state_dict({**state, "second": state["second"][:-1]})


def test_nothing_seen_is_a_named_error():
    empty = KeyCovariance(4)
    empty.update(keys(0, 4))
    with pytest.raises(StatisticsError, match="No key has been seen"):
        _ = empty.moment
    with pytest.raises(StatisticsError, match="at least one entry"):
        KeyCovariance(0)


@pytest.mark.parametrize("tokens", [3, 19, 20, 50])
def test_rank_counts_directions_that_were_used(tokens):
    covariance = KeyCovariance(20)
    covariance.update(keys(tokens, 20) * torch.logspace(-6, 6, 20))
    assert covariance.rank() == min(tokens, 20)


def test_gradients_do_not_leak():
    rows = keys(4, 3).requires_grad_()
    covariance = KeyCovariance(3)
    covariance.update(rows)
    assert not covariance.moment.requires_grad


def test_sums_born_in_inference_mode_go_on_in_training():
    with torch.inference_mode():
        covariance, other = KeyCovariance(3), KeyCovariance(3)
        covariance.update(keys(4, 3))
        other.load_state_dict(covariance.state_dict())
    for sums in (covariance, other):
        sums.update(keys(4, 3, seed=1))
        sums.merge(covariance)
    with torch.inference_mode():
        covariance.update(keys(4, 3))
    assert (covariance.count, other.count) == (20, 24)
