"""Single edits and groups: each from the clean model, by undo where the editor can, and the model is clean again."""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_edit.editors.editor import Editor
from lightning_edit.editors.report import EditReport, Guard
from lightning_edit.errors import EditError, LedgerError, StatisticsError
from lightning_edit.evaluation import AnswerOptions, Evaluator
from lightning_edit.jobs.asking import Asking, Untouched
from lightning_edit.jobs.asking_groups import play_in_groups
from lightning_edit.jobs.protocols import evaluate_in_groups
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.probes import Probe
from lightning_edit.requests import EditRequest
from tests.editors.conftest import NAMES, fact, says, weights
from tests.scripted import ScriptedLM

NOTHING = Untouched({}, [], None)
SHORT = Evaluator(None, None, None, None, options=AnswerOptions(max_new_tokens=2))


def probed(count: int) -> list[EditRequest]:
    return [
        dataclasses.replace(fact(i), locality={"near": (Probe(f"the mother of {NAMES[-1 - i]}", ("x",)),)})
        for i in range(count)
    ]


class Scripted(Editor):
    """Learns by heart. What it does to a model is seen at once; `forgets` lets each edit cost the one before."""

    def __init__(self, script: dict[str, str], forgets: bool = False, refuses: str = "") -> None:
        self.script, self.forgets, self.refuses = script, forgets, refuses
        self.known: list[EditRequest] = []
        self.calls: list[str] = []

    @property
    def requests(self) -> list[EditRequest]:
        return list(self.known)

    @property
    def layers(self) -> list[int]:
        return []

    def attach(self, module: object) -> list[int]:
        return []

    def weights(self, lm: LanguageModel) -> list[torch.Tensor]:
        return []

    def state_dict(self) -> dict[str, Any]:
        return {"known": [request.to_dict() for request in self.known]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.known = [EditRequest.from_dict(item) for item in state["known"]]

    def edit(self, module: Any, requests: Iterable[EditRequest], guard: Guard | None = None) -> EditReport:
        batch = list(requests)
        self.calls.append("+".join(request.id for request in batch))
        if any(request.id == self.refuses for request in batch):
            raise EditError("not this one")
        self.known += batch
        return self._write(module)

    def rollback(self, module: Any, count: int, guard: Guard | None = None) -> EditReport:
        self.calls.append(f"-{count}")
        del self.known[len(self.known) - count :]
        return self._write(module)

    def undo(self, module: object, ids: Iterable[str] | str, guard: Guard | None = None) -> EditReport:
        raise NotImplementedError

    def _write(self, module: Any) -> EditReport:
        kept = self.known[-1:] if self.forgets else self.known
        module.model.learn(self.script | {request.prompt: f" {request.target}" for request in kept})
        return EditReport()


def people(count: int) -> tuple[dict[str, str], list[EditRequest]]:
    script = {f"The twin of {i} is": " Eve" for i in range(count)}
    requests = [
        EditRequest(f"p{i}", f"{i} is in", "Rome", f"{i}", locality={"near": (Probe(f"The twin of {i} is", ("Eve",)),)})
        for i in range(count)
    ]
    return script, requests


def test_single_edits_are_alone_and_long_groups_are_not(tokenizer: Any) -> None:
    script, requests = people(4)
    lm, editor = ScriptedLM(tokenizer, script), Scripted(script, forgets=True)
    alone = evaluate_in_groups(editor, lm, requests)
    assert alone.scores == {"reliability": 1.0, "locality": 1.0}
    assert editor.calls == ["p0", "-1", "p1", "-1", "p2", "-1", "p3", "-1"]
    assert (alone.undone, alone.residual, len(alone.groups), editor.requests) == (4, 0.0, 4, [])
    pairs = evaluate_in_groups(editor, lm, requests, size=2)
    assert pairs.scores == {"reliability": 0.5, "locality": 1.0}  # of two edits the second is left
    assert pairs.groups == [{"reliability": 0.5, "locality": 1.0}] * 2
    assert pairs.scores.protocol.locality == "unedited"
    editor.calls.clear()
    assert evaluate_in_groups(editor, lm, requests, 4, edits_per_commit=2).scores["reliability"] == 0.25
    assert editor.calls == ["p0+p1", "p2+p3", "-4"]
    assert lm.model.following == ScriptedLM(tokenizer, script).model.following


def test_an_oracle_an_idle_and_a_wrong_editor(tokenizer: Any) -> None:
    script, requests = people(3)
    wrong = {f"The twin of {i} is": " Zoe" for i in range(3)} | {f"{i} is in": " Oslo" for i in range(3)}

    def run(writes: dict[str, str] | None) -> dict[str, float]:
        lm, editor = ScriptedLM(tokenizer, script), Scripted(script)
        if writes is not None:
            editor._write = lambda module: (  # type: ignore[method-assign]
                module.model.learn(writes if editor.known else script) or EditReport()
            )
        return dict(evaluate_in_groups(editor, lm, requests).scores)

    assert run(None) == {"reliability": 1.0, "locality": 1.0}
    assert run(script) == {"reliability": 0.0, "locality": 1.0}
    assert run(wrong) == {"reliability": 0.0, "locality": 0.0}


def test_a_refused_edit_counts_as_tried_and_what_fills_no_group_is_left_out(tokenizer: Any) -> None:
    script, requests = people(5)
    editor = Scripted(script, refuses="p1")
    found = evaluate_in_groups(editor, ScriptedLM(tokenizer, script), requests, size=2)
    assert found.scores["reliability"] == 0.75
    assert editor.calls == ["p0", "p1", "-1", "p2", "p3", "-2"]
    assert found.notes == ["1 requests do not fill a group and were left out", "p1 was refused: not this one"]


@pytest.mark.parametrize(
    ("name", "options", "undoes"),
    [
        ("memit", {}, True),
        ("memit", {"aligned": False}, False),
        ("rect", {"fraction": 0.3}, True),
        ("rome", {"layers": [1]}, False),
    ],
)
def test_every_group_starts_from_the_clean_weights(
    make_lm: Callable[..., LanguageModel], make_editor: Callable[..., Any], name: str, options: Any, undoes: bool
) -> None:
    lm, requests = make_lm(), probed(4)
    editor, apart = make_editor(lm, name, **options), make_editor(lm, name, **options)
    clean = weights(lm, editor)
    starts, edited = [], []
    original = editor.edit

    def edit(module: Any, batch: Any) -> EditReport:
        starts.append(weights(lm, editor))
        report = original(module, batch)
        edited.append(weights(lm, editor))
        return report

    editor.edit = edit
    ticks: list[int] = []
    found = evaluate_in_groups(editor, lm, requests, 1, evaluator=SHORT, tick=lambda: ticks.append(1))
    assert all(torch.equal(a, b) for start in starts for a, b in zip(start, clean, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(weights(lm, editor), clean, strict=True))
    assert editor.requests == []
    assert len(ticks) == len(found.groups) == 4
    assert (found.undone == 4) is undoes
    assert any("cannot undo" in note for note in found.notes) is not undoes
    apart.edit(lm, requests[2:3])  # another editor on the clean model does the same
    assert all(torch.equal(a, b) for a, b in zip(weights(lm, apart), edited[2], strict=True))


def test_what_an_undo_leaves_behind_is_taken_out(
    make_lm: Callable[..., LanguageModel], make_editor: Callable[..., Any]
) -> None:
    lm, requests = make_lm(), probed(3)
    editor = make_editor(lm)
    clean, original = weights(lm, editor), editor.rollback

    def rollback(module: Any, count: int) -> EditReport:
        report = original(module, count)
        with torch.no_grad():
            editor.weights(lm)[0][0, 0] += 1e-3
        return report

    editor.rollback = rollback
    found = evaluate_in_groups(editor, lm, requests, 1, evaluator=SHORT)
    size = float(torch.stack([weight.norm() for weight in clean]).norm())
    assert found.residual == pytest.approx(1e-3 / size, rel=1e-9)  # of one undo: they do not add up
    assert found.undone == 0
    assert found.row()["undo_residual"] == found.residual
    assert all(torch.equal(a, b) for a, b in zip(weights(lm, editor), clean, strict=True))


def test_sizes_make_a_curve(
    make_lm: Callable[..., LanguageModel], make_editor: Callable[..., Any], tmp_path: Path
) -> None:
    lm, requests = make_lm(), probed(4)
    editor = make_editor(lm)
    baseline = SHORT.measure_baseline(lm, requests)
    result = play_in_groups(editor, lm, requests, Asking(groups=[4, 1]), SHORT, baseline, NOTHING, tmp_path)
    assert result.curves["edit/count"].values == [1.0, 4.0]
    alone = [evaluate_in_groups(editor, lm, [request], evaluator=SHORT, baseline=baseline) for request in requests]
    mean = sum(one.scores["reliability"] for one in alone) / 4
    assert result.curves["edit/reliability"].values[0] == pytest.approx(mean)
    assert result.row["edits"] == 4
    assert result.row["groups"] == 1
    assert not says(lm, requests[0]) or not says(lm, requests[1])  # clean again


def test_what_it_refuses(make_lm: Callable[..., LanguageModel], make_editor: Callable[..., Any]) -> None:
    lm, requests = make_lm(), probed(2)
    editor = make_editor(lm)
    for size, at_once in ((0, 1), (3, 1), (1, 0)):
        with pytest.raises(EditError, match="expected groups of at least 1"):
            evaluate_in_groups(editor, lm, requests, size, at_once)
    editor.edit(lm, requests[:1])
    with pytest.raises(EditError, match="found 1 edits at work"):
        evaluate_in_groups(editor, lm, requests)
    assert [request.id for request in editor.requests] == ["r0"]
    editor.undo(lm, "r0")
    unprepared = type(editor)(layers=[0, 1])
    with pytest.raises((StatisticsError, LedgerError)):
        evaluate_in_groups(unprepared, lm, requests)


def test_an_interrupted_protocol_leaves_a_clean_model(
    make_lm: Callable[..., LanguageModel], make_editor: Callable[..., Any]
) -> None:
    lm, requests = make_lm(), probed(3)
    editor = make_editor(lm)
    clean = weights(lm, editor)

    def stop() -> None:
        raise KeyboardInterrupt

    broken = Evaluator(None, None, None, None, options=AnswerOptions(max_new_tokens=2))
    broken.ask = lambda *_: stop()  # type: ignore[method-assign, assignment]
    with pytest.raises(KeyboardInterrupt):
        evaluate_in_groups(editor, lm, requests, evaluator=broken, baseline=SHORT.measure_baseline(lm, requests))
    assert all(torch.equal(a, b) for a, b in zip(weights(lm, editor), clean, strict=True))
    assert editor.requests == []
