"""A compact ledger at rest: a third of the memory, the same solution, and bit for bit the same after loading."""

import io

import pytest
import torch

from lightning_edit.algebra import SiteLedger
from lightning_edit.algebra.packing import Packed
from lightning_edit.algebra.snapshot import Snapshot
from lightning_edit.errors import LedgerError, StateError
from tests.algebra.toys import KINDS, Toy, make_prior, make_toy


def compact(toy: Toy, kind: str, noise: float = 1.0) -> SiteLedger:
    return SiteLedger(toy.base, make_prior(kind, toy.moment)[0], noise, compact=True)


def rounded(toy: Toy) -> Toy:
    return Toy(toy.base, toy.moment, toy.keys.float().double(), toy.values.float().double())


def reloaded(ledger: SiteLedger, toy: Toy, kind: str) -> SiteLedger:
    file = io.BytesIO()
    torch.save(ledger.state_dict(), file)
    file.seek(0)
    other = compact(toy, kind, ledger.noise)
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_it_solves_for_what_was_rounded_however_often_it_rests(kind: str, noise: float) -> None:
    toy = rounded(make_toy(count=12))
    ledger, plain = compact(toy, kind, noise), SiteLedger(toy.base, make_prior(kind, toy.moment)[0], noise)
    for first in range(0, 12, 4):
        part = toy.part(list(range(first, first + 4)))
        ledger.append(*part)
        plain.append(*part)
        ledger.rest()
        assert isinstance(ledger.snapshot(), Packed)
    ledger.drop(["c5", "c0"])
    plain.drop(["c5", "c0"])
    ledger.rest()
    assert ledger.ids == plain.ids
    torch.testing.assert_close(ledger.keys, plain.keys, rtol=0, atol=0)
    torch.testing.assert_close(ledger.values, plain.values, rtol=0, atol=0)
    assert isinstance(ledger.snapshot(), Packed), "reading columns is no reason to unpack"
    scale = float(plain.solution().norm())
    assert float((ledger.solution() - plain.solution()).norm()) <= 1e-10 * scale
    assert isinstance(ledger.snapshot(), Snapshot)


def test_columns_are_rounded_as_they_come() -> None:
    toy = make_toy(count=6)
    ledger = compact(toy, "covariance")
    ledger.append(toy.ids, toy.keys, toy.values)
    assert torch.equal(ledger.keys, toy.keys.float().double())
    assert torch.equal(ledger.values, toy.values.float().double())
    with pytest.raises(LedgerError, match="not finite"):
        ledger.append(["x"], torch.full((60, 1), 1e200, dtype=torch.float64), toy.values[:, :1])


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_loaded_goes_on_bit_for_bit(kind: str) -> None:
    toy = make_toy(count=12)
    ledger = compact(toy, kind)
    ledger.append(*toy.part(list(range(8))))
    other = reloaded(ledger, toy, kind)
    for one in (ledger, other):
        one.append(*toy.part([8, 9, 10, 11]))
        one.rest()
    assert torch.equal(ledger.solution(), other.solution())


def test_it_takes_up_the_state_of_another_ledger_and_gives_its_own() -> None:
    toy = make_toy(count=12)
    plain = SiteLedger(toy.base, make_prior("null_space", toy.moment)[0])
    plain.append(toy.ids, toy.keys, toy.values)
    ledger = compact(toy, "null_space")
    ledger.load_state_dict(plain.state_dict())
    ledger.rest()
    kept = ledger.snapshot()
    assert isinstance(kept, Packed)
    assert kept.keys.dtype == torch.float64, "rounding what came unrounded would change the solution"
    torch.testing.assert_close(ledger.solution(), plain.solution(), rtol=0, atol=1e-12)
    back = SiteLedger(toy.base, make_prior("null_space", toy.moment)[0])
    back.load_state_dict(ledger.state_dict())
    torch.testing.assert_close(back.solution(), plain.solution(), rtol=0, atol=1e-12)


def test_snapshots_and_steps_do_not_care() -> None:
    toy = rounded(make_toy(count=12))
    ledger, plain = compact(toy, "covariance"), SiteLedger(toy.base, make_prior("covariance", toy.moment)[0])
    steps = []
    for one in (ledger, plain):
        one.append(*toy.part(list(range(8))))
        one.rest()
        before, deployed = one.snapshot(), one.solution()
        one.append(*toy.part([8, 9, 10, 11]))
        steps.append(one.increment(before, deployed))
        one.restore(before)
        assert len(one) == 8
    torch.testing.assert_close(*steps, rtol=0, atol=1e-11)


def test_bytes_at_rest() -> None:
    toy = make_toy(d=16, n=60, count=24)
    ledger = compact(toy, "covariance")
    ledger.append(toy.ids, toy.keys, toy.values)
    ledger.rest()
    kept = ledger.snapshot()
    assert isinstance(kept, Packed)
    assert kept.nbytes == 4 * (60 + 16) * 24 + 8 * 24 * 25 // 2
    plain = SiteLedger(toy.base, make_prior("covariance", toy.moment)[0])
    plain.append(toy.ids, toy.keys, toy.values)
    plain.rest()
    assert isinstance(plain.snapshot(), Snapshot)


def test_past_half_the_key_space_it_stays_as_it_is() -> None:
    toy = make_toy(count=40)
    ledger = compact(toy, "covariance")
    ledger.append(toy.ids, toy.keys, toy.values)
    ledger.rest()
    assert ledger.form == "primal"
    assert isinstance(ledger.snapshot(), Snapshot)


def test_a_damaged_factor_is_refused() -> None:
    toy = make_toy(count=6)
    ledger = compact(toy, "covariance")
    ledger.append(toy.ids, toy.keys, toy.values)
    state = ledger.state_dict()
    state["factor"] = {"lower": state["factor"]["lower"][:-3]}
    with pytest.raises(StateError, match="does not fit its 6 columns"):
        compact(toy, "covariance").load_state_dict(state)
