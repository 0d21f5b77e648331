"""Requests of one batch about one subject: one after another where their keys differ, in one commit all the same."""

from collections.abc import Callable

import pytest
import torch

from lightning_edit.editors import ClosedFormEditor, get_editor
from lightning_edit.editors.active import ActiveSet
from lightning_edit.errors import EditError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.requests import EditRequest
from tests.editors.conftest import fact, facts, gap, solutions, weights

Make = Callable[..., LanguageModel]
MakeEditor = Callable[..., ClosedFormEditor]

MOTHER = fact(0)
TONGUE = fact(0, "known", id="tongue", prompt="the language of Ann Smith")
HOME = fact(0, "country", id="home", prompt="a city of Ann Smith")
OTHER = fact(2)
BATCH = [MOTHER, TONGUE, OTHER, HOME]
ORDER = [[MOTHER, OTHER], [TONGUE], [HOME]]


def ids(active: ActiveSet) -> list[str]:
    return list(active.requests)


def test_steps_add_one_key_of_a_subject_at_a_time_and_end_with_the_set() -> None:
    batch = [*BATCH, fact(0, "of", id="shares", prompt="the language of Ann Smith is")]
    signatures = [
        (1, 9),
        (2, 9),
        (1, 7),
        (3, 9),
        (2, 9),
    ]  # the last one shares the second's text up to the subject
    active = ActiveSet().added([fact(5), fact(0, id="old", prompt="the job of Ann Smith")], [(1, 5), (4, 9)], True)
    goal = active.added(batch, signatures, hold_old=True)
    steps = goal.steps([request.id for request in batch])
    assert [ids(step) for step in steps] == [
        ["r5", "old", "r0", "r2"],
        ["r5", "old", "r0", "tongue", "r2", "shares"],
        ids(goal),
    ]
    assert steps[-1] == goal
    assert goal.steps([]) == [goal]


@pytest.mark.parametrize("history", ["kept", "absorbed", "latest"])
def test_a_batch_is_as_its_requests_one_after_another(history: str, make_lm: Make, make_editor: MakeEditor) -> None:
    lm, other = make_lm(), make_lm()
    at_once, in_parts = make_editor(lm, history=history), make_editor(other)
    before = weights(lm, at_once)
    at_once.edit(lm, BATCH)
    for part in ORDER:
        in_parts.edit(other, part)
    assert gap(weights(lm, at_once), weights(other, in_parts)) < 1e-9
    assert gap(weights(lm, at_once), before) > 1e-3
    if history == "kept":
        assert gap(solutions(at_once), solutions(in_parts)) < 1e-9
        assert ids(at_once._estate.book.active) == [request.id for request in BATCH]


def test_together_finds_all_targets_on_the_model_as_it_was(make_lm: Make, make_editor: MakeEditor) -> None:
    lm, other = make_lm(), make_lm()
    at_once, in_turn = make_editor(lm, same_subject="together"), make_editor(other)
    alone = [make_editor(single) for single in (make_lm(), make_lm())]
    report = at_once.edit(lm, BATCH[:2])
    losses = [editor.edit(make_lm(), [request]).losses for editor, request in zip(alone, BATCH[:2], strict=True)]
    assert report.losses == pytest.approx({**losses[0], **losses[1]}, abs=1e-9)
    in_turn.edit(other, BATCH[:2])
    assert gap(weights(lm, at_once), weights(other, in_turn)) > 1e-3


def test_different_subjects_are_one_step(make_lm: Make, make_editor: MakeEditor) -> None:
    found = []
    for how in ("in_turn", "together"):
        lm = make_lm()
        editor = make_editor(lm, same_subject=how)
        editor.edit(lm, facts(3))
        found.append(weights(lm, editor))
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_targets_on_the_base_are_solved_for_together(make_lm: Make, make_editor: MakeEditor) -> None:
    found = []
    for how in ("in_turn", "together"):
        lm = make_lm()
        editor = make_editor(lm, targets="base", same_subject=how)
        editor.edit(lm, BATCH)
        found.append(weights(lm, editor))
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_it_is_one_commit(make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm()
    editor = make_editor(lm)
    editor.edit(lm, [fact(5)])
    before, held = weights(lm, editor), solutions(editor)
    with pytest.raises(EditError, match="refused this edit of 4 requests"):
        editor.edit(lm, BATCH, guard=lambda report: False)
    assert all(torch.equal(*pair) for pair in zip(weights(lm, editor), before, strict=True))
    assert all(torch.equal(*pair) for pair in zip(solutions(editor), held, strict=True))
    report = editor.edit(lm, BATCH)
    assert report.ids == ["r0", "tongue", "r2", "home"]
    assert sorted(report.losses) == sorted(report.ids)
    editor.rollback(lm, 1)  # the last of the batch, and not of the steps
    assert [request.id for request in editor.requests] == ["r5", "r0", "tongue", "r2"]
    editor.undo(lm, report.ids[:3])
    assert gap(weights(lm, editor), before) < 1e-9


def test_the_option_is_checked() -> None:
    with pytest.raises(EditError, match="same_subject='apart'; expected one of 'in_turn', 'together'"):
        get_editor("memit", same_subject="apart")


def test_a_replaced_request_goes_with_the_first_step(make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm()
    editor = make_editor(lm)
    editor.edit(lm, BATCH)
    changed: list[EditRequest] = [fact(0, "country", id="new"), fact(0, "of", id="newer", prompt=TONGUE.prompt)]
    report = editor.edit(lm, changed)
    assert sorted(report.replaced) == ["r0", "tongue"]
    assert [request.id for request in editor.requests] == ["r2", "home", "new", "newer"]
