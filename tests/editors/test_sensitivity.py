"""The sensitivity-aware editor: MEMIT where nothing is fragile, its own objective elsewhere, and every promise kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_edit.algebra.sensitive_ledger import SensitiveLedger
from lightning_edit.algebra.sensitivity import Sensitivity, penalty, sensitive_solution
from lightning_edit.editors import ClosedFormEditor
from lightning_edit.editors.sensitivity import SensitivityAware
from lightning_edit.errors import EditError, LedgerError, StateError, StatisticsError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.weights import read_weight
from tests.algebra.toys import make_prior, make_toy
from tests.editors.conftest import STRONG, facts, gap, says, solutions, train_a_bit, weights
from tests.geometry.synthetic import orthonormal, randn

NAME = "lightning_edit.editors.sensitivity.SensitivityAware"
Make = Callable[..., LanguageModel]
MakeEditor = Callable[..., ClosedFormEditor]


def ledger_of(toy: Any, renew: Any = None) -> SensitiveLedger:
    prior, _, _ = make_prior("covariance", toy.moment)
    prices = torch.logspace(1, -1, len(toy.base), dtype=torch.float64)
    chosen = Sensitivity(orthonormal(len(toy.base), len(toy.base)), prices)
    return SensitiveLedger(toy.base, prior, chosen, 0.5, renew)


def test_columns_come_go_and_are_replaced_as_if_they_had_always_been_so() -> None:
    toy = make_toy(d=6, n=20, count=8)
    ledger = ledger_of(toy)
    assert torch.equal(ledger.solution(), toy.base)
    assert ledger.condition() == 1
    for part in ([0, 1], [2], [3, 4, 5, 6, 7]):
        ledger.append(*toy.part(part))
    ledger.drop(["c1", "c6"])
    ledger.replace(["c2"], toy.keys[:, 2:3], toy.values[:, 1:2])
    keys = toy.keys[:, [0, 2, 3, 4, 5, 7]]
    values = toy.values[:, [0, 1, 3, 4, 5, 7]]
    expected = sensitive_solution(toy.base, ledger.prior, 0.5, keys, values, ledger.sensitivity)
    assert torch.allclose(ledger.solution(), expected, rtol=1e-10, atol=1e-11)
    left, right = ledger.delta()
    assert torch.allclose(toy.base + left @ right.T, expected, rtol=1e-10, atol=1e-11)
    assert ledger.rank() == 6
    assert ledger.condition() > 1


def test_the_decomposition_is_made_once_for_each_set_of_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_edit.algebra import sensitive_ledger

    toy, made = make_toy(d=6, n=20, count=4), []
    build = sensitive_ledger.SensitiveForm.build
    monkeypatch.setattr(sensitive_ledger.SensitiveForm, "build", lambda *given: made.append(1) or build(*given))
    ledger = ledger_of(toy)
    ledger.append(*toy.part([0, 1]))
    first = ledger.solution()
    before = ledger.snapshot()
    assert torch.equal(ledger.solution(), first)
    assert len(made) == 1
    ledger.append(*toy.part([2]))
    ledger.solution()
    assert len(made) == 2
    ledger.restore(before)
    assert torch.equal(ledger.solution(), first)
    ledger.drop(["c1"])
    assert not torch.equal(ledger.solution(), first)


def test_drift_is_adopted_but_for_what_it_does_to_active_keys() -> None:
    toy = make_toy(d=6, n=20, count=4)
    ledger = ledger_of(toy)
    ledger.append(toy.ids, toy.keys, toy.values)
    deployed, drift = ledger.solution(), randn(6, 20)
    ledger.adopt(drift)
    found = ledger.solution()
    assert (found @ toy.keys - toy.values).norm() < 0.6 * ((deployed + drift) @ toy.keys - toy.values).norm()
    aside = torch.linalg.svd(ledger.prior.apply(toy.keys).T).Vh[4:].T  # where no edit of these keys writes
    assert ((found - deployed - drift) @ aside).norm() < 1e-9 * (drift @ aside).norm()


def test_a_new_prior_brings_new_directions_and_a_failure_brings_nothing() -> None:
    toy = make_toy(d=6, n=20, count=4)
    flat = Sensitivity(orthonormal(6, 6, seed=3), torch.ones(6, dtype=torch.float64))
    ledger = ledger_of(toy, renew=lambda base, prior: flat)
    ledger.append(toy.ids, toy.keys, toy.values)
    other, _, _ = make_prior("ridge", toy.moment)
    small, _, _ = make_prior("ridge", make_toy(d=6, n=10, count=2).moment)
    before, chosen = ledger.solution(), ledger.sensitivity
    with pytest.raises(LedgerError, match="length 10"):
        ledger.reprior(small)
    assert torch.equal(ledger.solution(), before)
    assert ledger.sensitivity is chosen
    ledger.reprior(other)
    expected = sensitive_solution(toy.base, other, 0.5, toy.keys, toy.values, flat)
    assert torch.allclose(ledger.solution(), expected)


def test_state_is_read_back_bit_for_bit_and_only_where_it_fits() -> None:
    toy = make_toy(d=6, n=20, count=4)
    one, other = ledger_of(toy), ledger_of(toy)
    one.append(toy.ids, toy.keys, toy.values)
    state = one.state_dict()
    other.load_state_dict(state)
    assert torch.equal(one.solution(), other.solution())
    with pytest.raises(StateError, match="no directions and weights"):
        other.load_state_dict({name: value for name, value in state.items() if name != "sensitivity"})
    wrong = Sensitivity(orthonormal(5, 5), torch.ones(5, dtype=torch.float64))
    with pytest.raises(LedgerError, match="width 5; expected 6"):
        other.load_state_dict({**state, "sensitivity": wrong.state_dict()})
    assert torch.equal(one.solution(), other.solution())


def test_what_needs_one_matrix_for_all_rows_is_refused() -> None:
    toy = make_toy(d=6, n=20, count=4)
    ledger = ledger_of(toy)
    ledger.append(toy.ids, toy.keys, toy.values)
    for reading in (
        ledger.covariance,
        lambda: ledger.project(toy.base),
        lambda: ledger.compensation(toy.base),
        lambda: ledger.increment(ledger.snapshot(), toy.base),
    ):
        with pytest.raises(LedgerError, match="no single"):
            reading()
    with pytest.raises(LedgerError, match="noise is 0"):
        SensitiveLedger(toy.base, ledger.prior, ledger.sensitivity, noise=0.0)


def test_without_exponent_it_is_memit(make_lm: Make, make_editor: MakeEditor) -> None:
    found = []
    for name, options in (("memit", {}), (NAME, {"exponent": 0.0})):
        lm = make_lm()
        editor = make_editor(lm, name, **options)
        editor.edit(lm, facts(3))
        found.append(weights(lm, editor))
    assert gap(*found) < 1e-8


def test_edits_hold_and_cost_less_where_text_is_fragile(make_lm: Make, make_editor: MakeEditor, moments: Any) -> None:
    known = moments(make_lm())[1]
    paid = {}
    for exponent in (0.0, 1.0):
        lm = make_lm()
        base = read_weight(lm.projection(1)).clone()
        prices = Sensitivity.from_moments(base, known.moment, known.mean)
        editor = make_editor(lm, NAME, layers=[1], exponent=exponent)
        editor.edit(lm, facts(3))
        assert all(says(lm, request) for request in facts(3))
        paid[exponent] = penalty(weights(lm, editor)[0] - base, known.moment, prices)
    assert paid[1.0] < 0.9 * paid[0.0]


def test_any_batching_undo_and_saving(make_lm: Make, make_editor: MakeEditor, tmp_path: Path, moments: Any) -> None:
    lm, once = make_lm(), make_lm()
    editor = make_editor(lm, NAME, targets="base")
    for batch in (facts(1, 2), facts(2), facts(1, 3)):
        editor.edit(lm, batch)
    whole = make_editor(once, NAME, targets="base")
    whole.edit(once, facts(4))
    assert gap(weights(lm, editor), weights(once, whole)) < 1e-7
    before = weights(lm, editor)
    editor.edit(lm, facts(1, 4))
    editor.undo(lm, ["r4"])
    assert gap(weights(lm, editor), before) < 1e-7

    editor.save(tmp_path / "editor.pt")
    resumed = SensitivityAware(layers=[0, 1], prior_weight=5.0, targets="base", **STRONG)
    resumed.load(tmp_path / "editor.pt")
    copy = make_lm()
    copy.model.load_state_dict(lm.model.state_dict())
    for one, model in ((editor, lm), (resumed, copy)):
        one.edit(model, facts(1, 5))
    assert all(torch.equal(a, b) for a, b in zip(weights(lm, editor), weights(copy, resumed), strict=True))
    assert all(isinstance(site.ledger, SensitiveLedger) for site in resumed.sites)
    with pytest.raises(StatisticsError, match="not at hand"):
        resumed.find_sensitivity(before[0], resumed.sites[0].ledger.prior)


def test_training_and_new_statistics(make_lm: Make, make_editor: MakeEditor, moments: Any) -> None:
    lm = make_lm()
    editor = make_editor(lm, NAME, layers=[1])
    editor.edit(lm, facts(3))
    chosen = editor.sites[0].ledger.sensitivity  # type: ignore[attr-defined]
    train_a_bit(lm)
    report = editor.repair(lm)
    assert report.drift_norm > 0
    assert all(says(lm, request) for request in facts(3))
    editor.reprior(lm, statistics=moments(lm))
    renewed = editor.sites[0].ledger.sensitivity  # type: ignore[attr-defined]
    assert not torch.equal(renewed.weights, chosen.weights)
    assert gap(weights(lm, editor), solutions(editor)) < 1e-12


def test_it_is_an_adapter(make_lm: Make, make_editor: MakeEditor, tmp_path: Path) -> None:
    lm = make_lm(dtype=torch.float32)
    editor = make_editor(lm, NAME, layers=[1])
    editor.edit(lm, facts(2))
    left, right = editor.sites[0].ledger.delta()
    assert left.shape[1] == right.shape[1] == 2
    editor.export_adapter(lm, tmp_path)
    assert (tmp_path / "adapter_model.safetensors").is_file()


def test_wrong_options_are_named() -> None:
    for options, message in [
        ({"exponent": -1.0}, "exponent >= 0"),
        ({"cap": 0.5}, "cap >= 1"),
        ({"deployment": "none"}, "one C_t"),
        ({"penalty": object()}, "no solver"),
    ]:
        with pytest.raises(EditError, match=message):
            SensitivityAware(**options)  # type: ignore[arg-type]
