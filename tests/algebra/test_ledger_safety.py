"""Nothing is lost on failure, and nothing changes by saving and loading: bit for bit."""

import dataclasses
import io

import pytest
import torch

from lightning_edit.algebra import CovariancePrior, RidgePrior, SiteLedger
from lightning_edit.errors import LedgerError, StateError
from tests.algebra.toys import KINDS, make_prior, make_toy


def bits(ledger):
    """Every tensor of a ledger, copied, and everything else."""
    snapshot = ledger.snapshot()
    form = {field.name: getattr(snapshot.form, field.name) for field in dataclasses.fields(snapshot.form)}
    found = {"base": snapshot.base, "keys": snapshot.keys, "values": snapshot.values, **form}
    tensors = {name: value.clone() for name, value in found.items() if torch.is_tensor(value)}
    return tensors, (snapshot.ids, snapshot.noise, snapshot.form.kind, snapshot.prior.fingerprint)


def same(a, b):
    return a[1] == b[1] and a[0].keys() == b[0].keys() and all(torch.equal(a[0][name], b[0][name]) for name in a[0])


def filled(count=24, noise=1.0, kind="covariance", dtype=torch.float64):
    toy = make_toy(count=count)
    ledger = SiteLedger(toy.base.to(dtype), make_prior(kind, toy.moment)[0], noise)
    ledger.append(toy.ids, toy.keys, toy.values)
    return toy, ledger


def spoiled(matrix, value=float("nan")):
    copy = matrix.clone()
    copy[1, 0] = value
    return copy


K, V = torch.ones(60, 1, dtype=torch.float64), torch.ones(20, 1, dtype=torch.float64)
BAD = {
    "append nan key": (lambda ledger: ledger.append(["x"], spoiled(K), V), "keys has 1 entries that are not finite"),
    "append inf value": (lambda ledger: ledger.append(["x"], K, spoiled(V, float("inf"))), "values has 1 entries"),
    "append overflowing key": (lambda ledger: ledger.append(["x"], K * 1e200, V), "cannot be factored"),
    "append short key": (lambda ledger: ledger.append(["x"], K[:59], V), r"shape \(59, 1\); expected \(60, 1\)"),
    "append too many values": (lambda ledger: ledger.append(["x"], K, torch.ones(20, 2)), r"expected \(20, 1\)"),
    "append transposed": (lambda ledger: ledger.append(["x"], K.T, V.T), r"expected \(60, 1\)"),
    "append active id": (lambda ledger: ledger.append(["c3"], K, V), r"\['c3'\] are active already"),
    "append id twice": (lambda ledger: ledger.append(["x", "x"], K.repeat(1, 2), V.repeat(1, 2)), "more than once"),
    "append bare string": (lambda ledger: ledger.append("x", K, V), "list of strings"),
    "append number": (lambda ledger: ledger.append([1], K, V), "list of strings"),
    "drop unknown": (lambda ledger: ledger.drop(["c1", "nobody"]), r"\['nobody'\] are not active"),
    "drop twice": (lambda ledger: ledger.drop(["c1", "c1"]), "more than once"),
    "replace unknown": (lambda ledger: ledger.replace(["nobody"], K, V), "not active"),
    "replace nan": (lambda ledger: ledger.replace(["c1"], K, spoiled(V)), "not finite"),
    "replace overflowing": (lambda ledger: ledger.replace(["c1"], K * 1e200, V), "cannot be factored"),
    "set_columns nan": (lambda ledger: ledger.set_columns(["c1"], spoiled(K), V), "not finite"),
    "set_columns twice": (lambda ledger: ledger.set_columns(["a", "a"], K, V), "more than once"),
    "adopt nan": (lambda ledger: ledger.adopt(spoiled(torch.zeros(20, 60))), "drift has 1 entries"),
    "adopt shape": (lambda ledger: ledger.adopt(torch.zeros(60, 20)), r"drift has shape \(60, 20\)"),
    "reprior size": (lambda ledger: ledger.reprior(RidgePrior(torch.eye(8), 1.0, 1.0)), "length 8; expected 60"),
    "restore other": (lambda ledger: ledger.restore(SiteLedger(torch.zeros(3, 60), ledger.prior).snapshot()), "shape"),
}


@pytest.mark.parametrize("count", [24, 45])
@pytest.mark.parametrize("name", BAD)
def test_a_failed_change_changes_no_bit(name, count):
    _, ledger = filled(count)
    before, snapshot = bits(ledger), ledger.snapshot()
    action, message = BAD[name]
    with pytest.raises(LedgerError, match=message):
        action(ledger)
    assert ledger.snapshot() is snapshot
    assert same(bits(ledger), before)


TWINS = {
    "append": lambda ledger, k, v: ledger.append(["twin"], k[:, :1], v[:, :1]),
    "replace": lambda ledger, k, v: ledger.replace(["c5"], k[:, :1], v[:, :1]),
    "set_columns": lambda ledger, k, v: ledger.set_columns(["a", "b"], k[:, :1].repeat(1, 2), v[:, :2]),
    "reprior": lambda ledger, k, v: ledger.reprior(make_prior("null_space", make_toy(cond=100.0).moment)[0]),
}


@pytest.mark.parametrize("how", TWINS)
def test_a_collision_at_noise_zero_changes_no_bit(how):
    toy, ledger = filled(24, noise=0.0)
    before = bits(ledger)
    with pytest.raises(LedgerError, match="collide"):
        TWINS[how](ledger, toy.keys, toy.values)
    assert same(bits(ledger), before)


def test_overflow_of_a_float32_base_is_refused():
    _, ledger = filled(dtype=torch.float32)
    before = bits(ledger)
    with pytest.raises(LedgerError, match=r"base weight is not finite in torch.float32"):
        ledger.adopt(torch.full((20, 60), 1e300, dtype=torch.float64))
    assert same(bits(ledger), before)


def test_a_solution_that_overflows_is_refused_and_nothing_absorbed():
    toy, ledger = filled()
    ledger.append(["huge"], toy.keys[:, :1] + 1e-9, torch.full((20, 1), 1.7e308, dtype=torch.float64))
    before = bits(ledger)
    with pytest.raises(LedgerError, match="edited weight is not finite"):
        ledger.absorb()
    assert same(bits(ledger), before)


@pytest.mark.parametrize("count", [24, 45])
def test_no_change_writes_into_a_tensor_that_somebody_holds(count):
    toy, ledger = filled(count)
    snapshot, before, solution = ledger.snapshot(), bits(ledger), ledger.solution()
    held = solution.clone()
    more = make_toy(count=5, seed=4)
    for change in (
        lambda: ledger.append([f"m{i}" for i in range(5)], more.keys, more.values),
        lambda: ledger.replace(["c1", "c20"], more.keys[:, :2], more.values[:, :2]),
        lambda: ledger.drop(["c0", "c21", "m3"]),
        lambda: ledger.adopt(torch.ones(20, 60, dtype=torch.float64)),
        lambda: ledger.reprior(CovariancePrior(toy.moment, 2.0)),
        lambda: ledger.absorb(),
        lambda: ledger.set_columns(["z"], more.keys[:, :1], more.values[:, :1]),
    ):
        change()
        assert torch.equal(solution, held)
    assert not same(bits(ledger), before)
    ledger.restore(snapshot)
    assert same(bits(ledger), before)
    assert torch.equal(ledger.solution(), held)


def test_the_ledger_keeps_no_handle_on_what_it_was_given():
    toy = make_toy()
    base, keys, values = toy.base.clone(), toy.keys.clone(), toy.values.clone()
    moment = toy.moment.clone()
    ledger = SiteLedger(base, CovariancePrior(moment, 15.0))
    ledger.append(toy.ids, keys, values)
    before = ledger.solution()
    for given in (base, keys, values, moment):
        given.fill_(7.0)
    ledger.append([], keys[:, :0], values[:, :0])
    assert torch.equal(ledger.solution(), before)


def test_a_solution_is_the_callers_to_write_to():
    toy = make_toy()
    ledger = SiteLedger(toy.base, CovariancePrior(toy.moment, 15.0))
    ledger.solution().fill_(7.0)
    assert torch.equal(ledger.solution(), toy.base)


@pytest.mark.parametrize(
    ("base", "noise", "message"),
    [
        (torch.zeros(60, 20), 1.0, "Conv1D"),
        (torch.zeros(60), 1.0, "expected a base"),
        (torch.full((20, 60), float("nan")), 1.0, "base weight has 1200 entries"),
        (torch.zeros(20, 60), -1.0, "noise is -1.0"),
        (torch.zeros(20, 60), float("nan"), "noise is nan"),
    ],
)
def test_a_ledger_refuses_a_bad_start(base, noise, message):
    with pytest.raises(LedgerError, match=message):
        SiteLedger(base, CovariancePrior(make_toy().moment, 1.0), noise)


# ---------------------------------------------------------------------------- state
def through_a_file(state):
    """Save and load as a checkpoint does, tensors and plain containers only."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def story(ledger, more, steps):
    """A run of every kind of change; each step is a commit."""
    for step in steps:
        if step == "append":
            ledger.append([f"m{len(ledger)}a", f"m{len(ledger)}b"], more.keys[:, :2], more.values[:, :2])
        elif step == "grow":
            ledger.append([f"g{i}" for i in range(20)], more.keys[:, 5:25], more.values[:, 5:25])
        elif step == "shrink":
            ledger.drop([f"g{i}" for i in range(20)])
        elif step == "resolve":
            ledger.replace(["c2", "c9"], more.keys[:, 2:4], more.values[:, 2:4])
        elif step == "undo":
            ledger.drop(["c4", "c1"])
        elif step == "adopt":
            ledger.adopt(0.1 * more.base)


STEPS = ["append", "grow", "resolve", "append", "adopt", "undo", "shrink", "append", "adopt"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("include_prior", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_resume_at_any_step_is_bit_equal(kind, include_prior, dtype):
    _, straight = filled(16, kind=kind, dtype=dtype)
    more = make_toy(count=30, seed=6)
    forms = set()
    for cut in range(len(STEPS)):
        _, first = filled(16, kind=kind, dtype=dtype)
        story(first, more, STEPS[:cut])
        toy = make_toy(count=16)
        blank = SiteLedger(
            torch.zeros(20, 60, dtype=dtype), first.prior if not include_prior else make_prior(kind, toy.moment)[0]
        )
        blank.load_state_dict(through_a_file(first.state_dict(include_prior)))
        forms.add(blank.form)
        assert same(bits(blank), bits(first))
        story(blank, more, STEPS[cut:])
        story(first, more, STEPS[cut:])
        assert same(bits(blank), bits(first))
        assert torch.equal(blank.solution(), first.solution())
    story(straight, more, STEPS)
    assert same(bits(straight), bits(first))
    assert forms == {"gram", "primal"}


def test_state_without_the_prior_is_smaller_and_takes_a_given_prior():
    toy, ledger = filled()
    state = ledger.state_dict(include_prior=False)
    assert state["prior"] is None
    other = SiteLedger(toy.base, CovariancePrior(toy.moment, 2.0))
    other.load_state_dict(state, prior=CovariancePrior(toy.moment, 15.0))
    assert torch.equal(other.solution(), ledger.solution())
    assert other.prior.fingerprint == ledger.prior.fingerprint


def test_a_saved_prior_replaces_the_ledgers_own():
    toy, ledger = filled()
    ledger.reprior(CovariancePrior(toy.moment, 3.0))
    other = SiteLedger(toy.base, CovariancePrior(toy.moment, 15.0))
    other.load_state_dict(ledger.state_dict())
    assert other.prior.fingerprint == ledger.prior.fingerprint
    assert torch.equal(other.solution(), ledger.solution())


def damage(**changes):
    return lambda state: {**state, **changes}


REFUSED = {
    "other prior": (
        lambda state: {**state, "prior": None, "fingerprint": "0" * 64},
        "saved with prior 0000000000000000",
    ),
    "prior swapped": (damage(fingerprint="0" * 64), "not the one that the saved ledger names"),
    "format": (damage(format=99), "format 99"),
    "missing": (lambda state: {k: v for k, v in state.items() if k != "values"}, r"lacks \['values'\]"),
    "base shape": (damage(base=torch.zeros(20, 61)), r"base has shape \(20, 61\); expected \(20, 60\)"),
    "ids": (lambda state: {**state, "ids": state["ids"][:-1]}, r"keys has shape \(60, 24\); expected \(60, 23\)"),
    "noise": (damage(noise=2.0), "saved with noise 2; this one has 1"),
    "factor lost": (damage(factor={}), "factor does not fit"),
    "factor short": (
        lambda state: {**state, "factor": {**state["factor"], "half": state["factor"]["half"][:, :5]}},
        "factor",
    ),
    "kind": (lambda state: {**state, "prior": {**state["prior"], "kind": "psychic"}}, "names the prior 'psychic'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_state_that_does_not_fit_is_refused_and_changes_no_bit(name):
    _, ledger = filled()
    change, message = REFUSED[name]
    before = bits(ledger)
    with pytest.raises(StateError, match=message):
        ledger.load_state_dict(change(ledger.state_dict()))
    assert same(bits(ledger), before)


def test_a_given_prior_with_another_fingerprint_is_refused():
    toy, ledger = filled()
    for include_prior in (True, False):
        with pytest.raises(StateError, match="saved with prior"):
            ledger.load_state_dict(ledger.state_dict(include_prior), prior=CovariancePrior(toy.moment, 15.0000001))
