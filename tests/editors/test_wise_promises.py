"""WISE keeps every promise of an editor: whole commits, failures, states."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_edit.editors import EditRefused, get_editor
from lightning_edit.editors.wise import learning
from lightning_edit.errors import EditError, RequestError, StateError
from tests.callbacks.training import same
from tests.editors.forward import (
    WISE_OPTIONS,
    Make,
    fact,
    facts,
    logits,
    prompts_of,
    wise,
)
from tests.editors.gradient import changed, nothing_else_changes, snapshot


def test_commits_are_taken_back_as_a_whole(make_lm: Make) -> None:
    lm = make_lm(dtype=torch.float32)
    made = wise(lm, steps=15, undo_depth=2)
    plain = logits(lm, prompts_of(facts(4)))
    states, answers = [], []
    for batch in ([fact(0)], [fact(1), fact(2)], [fact(0, "language", id="new")]):
        report = made.edit(lm, batch)
        states.append(made.state_dict()["book"]["side"])
        answers.append(logits(lm, prompts_of(facts(4))))
    assert report.replaced == ["r0"]
    assert [request.id for request in made.requests] == ["r1", "r2", "new"]
    for ids, match in ((["r1"], "one commit"), (["r1", "r2"], "only the last ones"), (["r9"], "not at work")):
        with pytest.raises(EditError, match=match):
            made.undo(lm, ids)
    with pytest.raises(EditError, match=r"one of \[0, 1, 3, 4\]"):
        made.rollback(lm, 2)
    with pytest.raises(EditError, match="kept for the last 2 only"):
        made.rollback(lm, 4)
    report = made.undo(lm, ["new"])
    assert (report.ids, report.restored, report.active) == (["new"], ["r0"], 3)
    assert same(made.state_dict()["book"]["side"], states[1])
    assert torch.equal(logits(lm, prompts_of(facts(4))), answers[1])
    made.rollback(lm, 2)
    assert torch.equal(logits(lm, prompts_of(facts(4))), answers[0])
    assert not torch.equal(answers[0], plain)
    with pytest.raises(RequestError, match="applied already"):
        made.edit(lm, [fact(0)])


def test_the_first_commit_can_be_taken_back(make_lm: Make) -> None:
    lm = make_lm(dtype=torch.float32)
    plain = logits(lm, prompts_of(facts(4)))
    made = wise(lm, steps=15)
    made.edit(lm, facts(2))
    made.rollback(lm, 2)
    assert made.requests == []
    assert torch.equal(logits(lm, prompts_of(facts(4))), plain)


@pytest.mark.parametrize("fault", ["guard", "error", "infinite"])
def test_what_fails_leaves_everything_as_it_was(fault: str, make_lm: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = make_lm(dtype=torch.float32)
    made = wise(lm, steps=15)
    made.edit(lm, facts(1))
    state, answers = made.state_dict(), logits(lm, prompts_of(facts(4)))
    heard: list[torch.Tensor] = []

    def guard(report: object) -> bool:
        heard.append(logits(lm, prompts_of(facts(4))))
        return False

    with nothing_else_changes(lm):
        if fault == "guard":
            with pytest.raises(EditRefused):
                made.edit(lm, facts(2, 1), guard)
            with pytest.raises(EditRefused):
                made.undo(lm, "r0", guard)
        elif fault == "error":
            taught = learning.teach
            calls = []

            def teach(*args: Any) -> Any:
                calls.append(args)
                return taught(*args) if len(calls) == 1 else 1 / 0

            monkeypatch.setattr(learning, "teach", teach)
            with pytest.raises(ZeroDivisionError):
                made.edit(lm, facts(2, 1))
        else:
            made._settings = None
            monkeypatch.setitem(made._given, "lr", float("nan"))
            with pytest.raises(EditError, match=r"not finite|lr"):
                made.edit(lm, facts(2, 1))
    if fault == "guard":
        assert not torch.equal(heard[0], answers)  # it looks at the edited model
    assert same(made.state_dict(), state)
    assert torch.equal(logits(lm, prompts_of(facts(4))), answers)


def test_an_edit_disturbs_nothing(make_lm: Make) -> None:
    lm = make_lm(dtype=torch.float32)
    made = wise(lm, texts=None, contexts=1, steps=5)
    parameters = snapshot(lm)
    with nothing_else_changes(lm):
        made.edit(lm, facts(2))
        made.rollback(lm, 2)
    assert changed(lm, parameters) == []


def test_a_state_goes_on_bit_for_bit(make_lm: Make, tmp_path: Path) -> None:
    options = {"steps": 10, "shard_edits": 2, "merge_shards": 2, "texts": None, "contexts": None}
    lm, other = make_lm(dtype=torch.float32), make_lm(dtype=torch.float32)
    made = wise(lm, **options)
    for number in range(3):
        made.edit(lm, [fact(number)])
    made.save(tmp_path / "wise.pt")
    loaded = get_editor("wise", **{**WISE_OPTIONS, **options})
    loaded.load(tmp_path / "wise.pt")
    assert loaded.attach(other) == [1]
    assert torch.equal(logits(lm, prompts_of(facts(4))), logits(other, prompts_of(facts(4))))
    for one, model in ((made, lm), (loaded, other)):
        one.edit(model, facts(2, 3))
        one.undo(model, ["r3", "r4"])
        one.edit(model, [fact(5)])
    assert same(made.state_dict(), loaded.state_dict())
    assert len(made.side.finished) == 1
    assert torch.equal(logits(lm, prompts_of(facts(6))), logits(other, prompts_of(facts(6))))
    with pytest.raises(StateError, match="shard_edits"):
        wise(make_lm(), shard_edits=7).load_state_dict(made.state_dict())
