"""Sequential equals one-time, undo undoes, a failure leaves no trace, a resumed editor goes on bit for bit."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_edit.algebra import TopKRelativeChange
from lightning_edit.editors import ClosedFormEditor, EditRefused, get_editor
from lightning_edit.editors.edited_site import EditedSite
from lightning_edit.errors import EditError, LedgerError, StateError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.walk import Walk
from lightning_edit.requests import EditRequest
from tests.editors.conftest import NAMES, STRONG, fact, gap, says, solutions, train_a_bit, weights
from tests.reference import one_time

Make = Callable[..., LanguageModel]
MakeEditor = Callable[..., ClosedFormEditor]


def pair(*ids: int) -> list[EditRequest]:
    """Facts by number."""
    return [fact(i) for i in ids]


def same(found: object, expected: object) -> bool:
    """Whether two plain states are equal, bit for bit."""
    if isinstance(expected, Tensor):
        return isinstance(found, Tensor) and found.dtype == expected.dtype and torch.equal(found, expected)
    if isinstance(expected, dict):
        return (
            isinstance(found, dict)
            and found.keys() == expected.keys()
            and all(same(found[key], value) for key, value in expected.items())
        )
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(same(a, b) for a, b in zip(found, expected, strict=True))  # type: ignore[arg-type]
    return found == expected


def test_any_batching_gives_the_one_time_solution(make_lm: Make, make_editor: MakeEditor, moments: Callable) -> None:
    lm, original = make_lm(), make_lm()
    editor = make_editor(lm, layers=[1])
    for batch in (pair(3), pair(0, 5, 1), pair(4, 2)):
        editor.edit(lm, batch)
    ledger = editor.sites[0].ledger
    base = weights(original, editor)[0]
    expected = one_time(base, 5.0 * moments(original)[1].moment, 1.0, ledger.keys, ledger.values)
    assert gap([ledger.solution()], [expected]) < 1e-9
    assert gap(weights(lm, editor), [expected]) < 1e-9


@pytest.mark.parametrize("batches", [[(2,), (0, 3), (1,)], [(3, 2, 1, 0)]])
def test_base_targets_make_order_and_batching_irrelevant(
    batches: list[tuple[int, ...]], make_lm: Make, make_editor: MakeEditor
) -> None:
    lm, other = make_lm(), make_lm()
    editor, once = make_editor(lm, targets="base"), make_editor(other, targets="base")
    for batch in batches:
        editor.edit(lm, pair(*batch))
    once.edit(other, pair(0, 1, 2, 3))
    assert gap(weights(lm, editor), weights(other, once)) < 1e-9


def test_rebuild_is_the_one_time_edit_over_layers(make_lm: Make, make_editor: MakeEditor, moments: Callable) -> None:
    lm, plain = make_lm(), make_lm()
    editor = make_editor(lm, layers=[0, 1, 2], contexts=[])
    for batch in (pair(0, 1), pair(2)):
        editor.edit(lm, batch)
    live = weights(lm, editor)
    editor.rebuild(lm)
    targets = torch.stack([column.z for column in editor._estate.book.columns.values()], dim=1)
    texts = [request.prompt for request in editor.requests]
    spans = [request.subject_span for request in editor.requests]
    prior = moments(make_lm())
    for i, layer in enumerate((0, 1, 2)):
        weight = plain.projection(layer).weight.data
        keys = plain.read_keys(texts, spans, [layer])[layer].T
        missing = (targets - plain.read_hidden(texts, spans, [2])[2].T) / (3 - i)
        weight.copy_(one_time(weight, 5.0 * prior[layer].moment, 1.0, keys, weight @ keys + missing))
    assert gap(weights(lm, editor), weights(plain, editor)) < 1e-9
    assert gap(weights(lm, editor), live) > 1e-6  # live editing is another thing, and nobody claims otherwise


@pytest.mark.parametrize("targets", ["live", "base"])
def test_undo_takes_an_edit_back(targets: str, make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm()
    editor = make_editor(lm, targets=targets)
    original = [lm.projection(layer).weight.data.clone() for layer in (0, 1)]
    editor.edit(lm, pair(0, 1))
    exact, deployed = solutions(editor), weights(lm, editor)
    editor.edit(lm, pair(2, 3))
    report = editor.undo(lm, ["r2", "r3"])
    assert (report.kind, report.count, report.active) == ("undo", 2, 2)
    assert gap(solutions(editor), exact) < 1e-9
    assert gap(weights(lm, editor), deployed) < 1e-9
    editor.rollback(lm, 2)
    assert all(torch.equal(a, b) for a, b in zip(weights(lm, editor), original, strict=True))
    assert editor.requests == []


def test_undo_in_the_middle_is_never_having_had_it(make_lm: Make, make_editor: MakeEditor) -> None:
    lm, other = make_lm(), make_lm()
    editor, without = make_editor(lm, targets="base"), make_editor(other, targets="base")
    for i in (0, 1, 2):
        editor.edit(lm, pair(i))
    editor.undo(lm, "r1")
    without.edit(other, pair(0, 2))
    assert gap(weights(lm, editor), weights(other, without)) < 1e-9


def test_undo_of_a_joint_column_restores_the_earlier_one(make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm()
    editor = make_editor(lm)
    editor.edit(lm, pair(0, 1))
    exact = solutions(editor)
    editor.edit(lm, [fact(0, "the", id="other", prompt=f"the mother of {NAMES[0]} is a")])
    report = editor.undo(lm, ["other"])
    assert report.losses == {}
    assert gap(solutions(editor), exact) < 1e-9
    assert editor.sites[0].ledger.ids == ["r1", "r0"]


def test_resolving_is_never_having_had_the_old_one(make_lm: Make, make_editor: MakeEditor) -> None:
    lm, other = make_lm(), make_lm()
    editor, fresh = make_editor(lm, targets="base"), make_editor(other, targets="base")
    new = fact(1, "is", id="new")
    editor.edit(lm, pair(0, 1))
    editor.edit(lm, [new])
    fresh.edit(other, [fact(0), new])
    assert gap(weights(lm, editor), weights(other, fresh)) < 1e-9


def test_undoing_a_replacement_brings_the_old_one_back(make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm()
    editor = make_editor(lm)
    editor.edit(lm, pair(0, 1))
    exact = solutions(editor)
    editor.edit(lm, [fact(1, "is", id="new")])
    with pytest.raises(LedgerError, match="replaced by 'new'"):
        editor.undo(lm, ["r1"])
    report = editor.undo(lm, ["new"])
    assert report.restored == ["r1"]
    assert gap(solutions(editor), exact) < 1e-9
    assert says(lm, fact(1))
    editor.edit(lm, [fact(1, "is", id="again")])
    editor.rollback(lm, 2)  # the replacement, then what it had replaced
    assert [request.id for request in editor.requests] == ["r0"]


def test_what_is_not_in_the_ledger_cannot_be_undone(make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm()
    editor = make_editor(lm, aligned=False)
    editor.edit(lm, pair(0))
    with pytest.raises(LedgerError, match="aligned=True"):
        editor.undo(lm, ["r0"])
    with pytest.raises(LedgerError, match="not at work"):
        editor.undo(lm, ["nobody"])
    with pytest.raises(LedgerError, match="roll back 5"):
        editor.rollback(lm, 5)


def test_no_edit_no_change(make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm(dtype=torch.bfloat16)
    editor = make_editor(lm)
    editor.edit(lm, pair(0))
    before, state = weights(lm, editor), editor.state_dict()
    for change in (editor.edit(lm, []), editor.repair(lm), editor.rollback(lm, 0)):
        assert change.delta_norm == 0
    assert all(torch.equal(a, b) for a, b in zip(weights(lm, editor), before, strict=True))
    assert same(editor.state_dict(), state)


@pytest.mark.parametrize("trouble", ["guard", "write", "targets", "interrupt", "not finite"])
def test_a_failed_edit_leaves_no_trace(
    trouble: str, make_lm: Make, make_editor: MakeEditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = make_lm(dtype=torch.float32)
    editor = make_editor(lm)
    editor.edit(lm, pair(0, 1))
    train_a_bit(lm)
    everything = {name: value.clone() for name, value in lm.model.state_dict().items()}
    state, seed = editor.state_dict(), torch.random.get_rng_state()
    deploy = EditedSite.deploy

    def fails_late(site: EditedSite, *args: object) -> None:
        deploy(site, *args)  # type: ignore[arg-type]
        if site.layer == 1 and "r2" in site.ledger.ids:
            raise KeyboardInterrupt if trouble == "interrupt" else ZeroDivisionError

    if trouble in ("write", "interrupt"):
        monkeypatch.setattr(EditedSite, "deploy", fails_late)
    if trouble == "targets":
        monkeypatch.setattr("lightning_edit.editors.upkeep.optimize_targets", lambda *args: 1 / 0)
    if trouble == "not finite":
        monkeypatch.setattr(Walk, "keys", lambda self, layer: torch.full((len(self), 64), float("nan")))
    expected = {"guard": EditRefused, "interrupt": KeyboardInterrupt, "not finite": EditError}
    with pytest.raises(expected.get(trouble, ZeroDivisionError)):
        editor.edit(lm, [fact(2), fact(0, "is", id="new")], guard=lambda report: trouble != "guard")
    assert all(torch.equal(value, everything[name]) for name, value in lm.model.state_dict().items())
    assert same(editor.state_dict(), state)
    assert torch.equal(torch.random.get_rng_state(), seed)
    monkeypatch.undo()
    editor.edit(lm, [fact(2), fact(0, "is", id="new")])
    assert len(editor.requests) == 3


def test_guard_sees_the_edited_model(make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm()
    editor = make_editor(lm)
    seen = []
    editor.edit(lm, pair(0), guard=lambda report: bool(seen.append((says(lm, fact(0)), report.delta_norm > 0))) or True)
    assert seen == [(True, True)]


def test_rounding_is_made_up_for(make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm(dtype=torch.bfloat16)
    editor = make_editor(lm, prior_weight=50.0)
    for i in range(6):
        report = editor.edit(lm, pair(i))
        for exact, now in zip(solutions(editor), weights(lm, editor), strict=True):
            assert torch.equal(now, exact.bfloat16())  # the rounding of the sum, not the sum of roundings
    norms = [
        float((now.double() - exact).norm()) for exact, now in zip(solutions(editor), weights(lm, editor), strict=True)
    ]
    assert report.pending_norm == pytest.approx(sum(norm**2 for norm in norms) ** 0.5)
    assert report.pending_norm > 0


def test_restriction_is_fed_back(make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm()
    keep = TopKRelativeChange(0.2)
    editor = make_editor(lm, restriction=keep)
    for i in (0, 1, 2):
        before = weights(lm, editor) if editor.sites else [lm.projection(layer).weight.data.clone() for layer in (0, 1)]
        editor.edit(lm, pair(i))
        for old, now, exact in zip(before, weights(lm, editor), solutions(editor), strict=True):
            assert gap([now], [old + keep(exact - old, old)]) < 1e-12
            assert ((now != old).sum() / now.numel()).item() == pytest.approx(0.2, abs=0.01)


def test_resumes_bit_for_bit(make_lm: Make, make_editor: MakeEditor, tmp_path: Path) -> None:
    lm, resumed = make_lm(dtype=torch.float32), make_lm(dtype=torch.float32)
    editor = make_editor(lm)
    editor.edit(lm, pair(0, 1))
    editor.edit(lm, [fact(1, "is", id="new"), fact(2)])
    editor.save(tmp_path / "editor.pt")
    resumed.model.load_state_dict(lm.model.state_dict())
    late = get_editor("memit", layers=[0, 1], prior_weight=5.0, **STRONG)
    late.load(tmp_path / "editor.pt")
    assert late.prepared
    assert same(late.state_dict(), editor.state_dict())
    for model, one in ((lm, editor), (resumed, late)):
        train_a_bit(model)
        one.edit(model, pair(3, 4))
        one.undo(model, ["new"])
    assert all(torch.equal(a, b) for a, b in zip(weights(lm, editor), weights(resumed, late), strict=True))
    assert same(late.state_dict(), editor.state_dict())
    assert late.requests == editor.requests


def test_state_of_another_editor_is_refused(make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm()
    editor = make_editor(lm)
    editor.edit(lm, pair(0))
    state = editor.state_dict()
    for options, word in (({"aligned": False}, "history"), ({"layers": [1]}, "layers")):
        with pytest.raises(StateError, match=word):
            make_editor(make_lm(), **options).load_state_dict(state)
    with pytest.raises(StateError, match="another model"):
        editor.edit(make_lm(vocab_size=330), pair(1))
