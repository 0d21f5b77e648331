"""GRACE keeps every promise of an editor: contradictions, failures, states."""

from pathlib import Path

import pytest
import torch

from lightning_edit.editors import EditRefused, get_editor
from lightning_edit.editors.grace import learning
from lightning_edit.errors import EditError, RequestError, StateError
from tests.callbacks.training import same
from tests.editors.forward import (
    GRACE_OPTIONS,
    Make,
    fact,
    facts,
    grace,
    logits,
    prompts_of,
    says,
    written,
)
from tests.editors.gradient import nothing_else_changes


def test_a_contradiction_replaces_and_comes_back(make_lm: Make) -> None:
    lm = make_lm()
    made = grace(lm)
    made.edit(lm, [fact(1), fact(2)])
    before = written(lm, [fact(1).prompt])
    report = made.edit(lm, [fact(1, "language", id="new")])
    assert report.replaced == ["r1"]
    assert [request.id for request in made.requests] == ["r2", "new"]
    assert says(lm, [fact(1, "language")]) == [True]
    report = made.undo(lm, ["new"])
    assert report.restored == ["r1"]
    assert written(lm, [fact(1).prompt]) == before
    with pytest.raises(RequestError, match="under another subject"):
        made.edit(lm, [fact(1, "language", id="odd", subject="Bob 1", relation="home")])
    with pytest.raises(RequestError, match="applied already"):
        made.edit(lm, [fact(2)])
    made.edit(
        lm, [fact(2, id="again", subject="Cleo 2", relation="home")]
    )  # the same fact under another name joins the entry
    assert ("r2", "again") in [entry.members for entry in made.entries]


@pytest.mark.parametrize("fault", ["guard", "error", "infinite"])
def test_what_fails_leaves_everything_as_it_was(fault: str, make_lm: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = make_lm(dtype=torch.float32)
    made = grace(lm)
    made.edit(lm, facts(2))
    state, answers = made.state_dict(), logits(lm, prompts_of(facts(4)))
    heard: list[list[bool]] = []

    def guard(report: object) -> bool:
        heard.append(says(lm, facts(4)))
        return False

    with nothing_else_changes(lm):
        if fault == "guard":
            with pytest.raises(EditRefused):
                made.edit(lm, facts(2, 2), guard)
            with pytest.raises(EditRefused):
                made.undo(lm, "r0", guard)
        elif fault == "error":
            monkeypatch.setattr(learning, "find_values", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                made.edit(lm, facts(2, 2))
        else:
            monkeypatch.setitem(made._given, "lr", float("inf"))
            made._settings = None
            with pytest.raises(EditError, match="not finite"):
                made.edit(lm, facts(2, 2))
    if fault == "guard":
        assert heard[0] == [True] * 4  # it looks at the edited model
    assert same(made.state_dict(), state)
    assert torch.equal(logits(lm, prompts_of(facts(4))), answers)


def test_a_state_goes_on_bit_for_bit(make_lm: Make, tmp_path: Path) -> None:
    lm, other = make_lm(), make_lm()
    made = grace(lm, radius=100.0, steps=10)
    made.edit(lm, facts(4))
    made.save(tmp_path / "grace.pt")
    loaded = get_editor("grace", **{**GRACE_OPTIONS, "radius": 100.0, "steps": 10})
    loaded.load(tmp_path / "grace.pt")
    assert loaded.attach(other) == [1]
    assert written(other, prompts_of(facts(4))) == written(lm, prompts_of(facts(4)))
    for one, model in ((made, lm), (loaded, other)):
        one.edit(model, [*facts(2, 4), fact(1, "language", id="new")])
        one.undo(model, "r2")
    assert same(made.state_dict(), loaded.state_dict())
    assert torch.equal(logits(lm, prompts_of(facts(6))), logits(other, prompts_of(facts(6))))


def test_a_state_of_something_else_is_refused(make_lm: Make) -> None:
    made = grace(make_lm())
    made.edit(made._lm, facts(1))
    state = made.state_dict()
    with pytest.raises(StateError, match=r"radius.*0\.05"):
        grace(make_lm(), radius=1.0).load_state_dict(state)
    with pytest.raises(StateError, match="made on the model"):
        grace(make_lm("gpt2")).load_state_dict(state)
    with pytest.raises(StateError, match="version"):
        grace(make_lm()).load_state_dict({**state, "version": 7})
    other = get_editor("grace", **{**GRACE_OPTIONS, "layer": 2})
    other.load_state_dict(state)
    with pytest.raises(StateError, match="layer"):
        other.attach(make_lm())
