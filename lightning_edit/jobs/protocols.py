"""Protocols that measure edits in groups, each from the clean model: single edits, groups of ten, of a hundred.

One long sequence says what an editor comes to; single edits say what it can do at best, and groups lie between. The
clean model is not loaded again for each group: the editor takes its edits back. Knows the order of these; what is asked
stands in `evaluation/`.
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_edit.editors.editor import Editor
from lightning_edit.errors import EditError
from lightning_edit.evaluation import Baseline, Evaluator, Outcome, Scores, shares
from lightning_edit.evaluation.going_on import remark_on_going_on
from lightning_edit.evaluation.protocol import Protocol
from lightning_edit.evaluation.quality import protocol_of
from lightning_edit.model.language_model import LanguageModel, as_language_model
from lightning_edit.requests import EditRequest
from lightning_edit.runner.results import Scalar

PAPER_SIZES = (1, 10, 100)
"""Sizes of groups in *Revisiting*, Appendix C.1, each over the first 100 requests."""


@dataclass(slots=True)
class Grouped:
    """What came of a number of groups.

    Args:
        size: Edits in each group.
        scores: Shares over the questions of all groups, each question weighing the same.
        groups: Shares of each group.
        outcomes: What came of every question.
        seconds_per_edit: Mean over all edits; undoing is not counted.
        cpu_seconds_per_edit: The same in processor time of all threads, which other programs do not lengthen.
        undone: Groups after which the editor's own undo gave the clean weights back, bit for bit.
        residual: Largest distance that an undo left, ||W - W_0|| / ||W_0||; the next group started without it.
        notes: Remarks for a person: requests left out, edits refused, an editor that cannot undo.
    """

    size: int
    scores: Scores
    groups: list[dict[str, float]]
    outcomes: list[Outcome]
    seconds_per_edit: float
    cpu_seconds_per_edit: float
    undone: int
    residual: float
    notes: list[str] = field(default_factory=list)

    def row(self) -> dict[str, Scalar]:
        """The numbers on one line."""
        undo = {"groups": len(self.groups), "undone": self.undone, "undo_residual": self.residual}
        times = {"seconds_per_edit": self.seconds_per_edit, "cpu_seconds_per_edit": self.cpu_seconds_per_edit}
        return {"edits": self.size, **self.scores.row(), **times, **undo}


def evaluate_in_groups(
    editor: Editor,
    module: object,
    requests: Sequence[EditRequest],
    size: int = 1,
    edits_per_commit: int = 1,
    evaluator: Evaluator | None = None,
    baseline: Baseline | None = None,
    tick: Callable[[], object] = lambda: None,
    look: Callable[[Sequence[EditRequest]], object] = lambda group: None,
) -> Grouped:
    """Edit each group of requests into the clean model, ask about the group, and take it back.

    `size=1` is the single-edit protocol: every request alone. *Revisiting*, Appendix C.1, takes 1, 10 and 100 over the
    first 100 requests, one edit after another within a group. After each group the editor undoes it; where that leaves
    anything behind (a restriction does), or the editor cannot undo, weights and editor are put back from a copy. Either
    way the next group starts from the clean weights, bit for bit, and at the end the model is clean again.

    Args:
        editor: A prepared editor with no edits at work.
        module: An `EditableModule` or a `LanguageModel`, unedited.
        requests: The requests, in order; what is left over by full groups is left out.
        size: Edits in each group.
        edits_per_commit: Requests handed to the editor at once.
        evaluator: What is asked about each group; everything by default.
        baseline: What the unedited model answered; asked here where None.
        tick: Called after each group.
        look: Called with each group while the model carries it, after it has been asked about.
    """
    if not 1 <= size <= len(requests) or edits_per_commit < 1:
        raise EditError(
            f"found groups of {size} out of {len(requests)} requests, {edits_per_commit} at once; expected groups of "
            "at least 1 and at most as many as there are requests, and at least one at once."
        )
    lm, asking = as_language_model(module), evaluator or Evaluator(None, None, None, None)
    stage = _CleanModel(editor, lm)
    cuts = range(0, len(requests) - size + 1, size)
    used = [request for start in cuts for request in requests[start : start + size]]
    known = baseline or asking.measure_baseline(lm, used)
    notes = [f"{len(requests) - len(used)} requests do not fill a group and were left out"] * (
        len(used) < len(requests)
    )
    outcomes: list[Outcome] = []
    groups, seconds = [], 0.0
    try:
        for start in cuts:
            group = requests[start : start + size]
            for step in range(0, size, edits_per_commit):
                seconds += stage.edit(group[step : step + edits_per_commit])
            found = asking.ask(lm, group, known)
            outcomes += found
            groups.append(shares(found))
            look(group)
            stage.clear()
            tick()
    finally:
        stage.put_back()
    scores = Scores(shares(outcomes, asking.by_kind), _protocol(asking))
    per_edit = (seconds / len(used), stage.cpu_seconds / len(used))
    remark = remark_on_going_on(outcomes)
    notes += [*stage.notes, *([remark] if remark else [])]
    return Grouped(size, scores, groups, outcomes, *per_edit, stage.undone, stage.residual, notes)


def protocol_name(evaluator: Evaluator) -> str:
    """How answers are decoded, read and judged, on one line for a row; locality is held against the unedited model.

    Args:
        evaluator: What is asked.
    """
    return _protocol(evaluator).name


class _CleanModel:
    """A model without edits, and the way back to it."""

    def __init__(self, editor: Editor, lm: LanguageModel) -> None:
        editor.attach(lm)
        if editor.requests:
            raise EditError(
                f"found {len(editor.requests)} edits at work, expected an editor without any: groups start from the "
                "clean model. Undo them, or give a new editor."
            )
        self.editor, self.lm = editor, lm
        self._weights = [weight.detach().clone() for weight in editor.weights(lm)]
        self._state: dict[str, Any] = copy.deepcopy(editor.state_dict())
        self._applied = 0
        self.undone, self.residual, self.cpu_seconds = 0, 0.0, 0.0
        self.notes: list[str] = []

    def edit(self, requests: Sequence[EditRequest]) -> float:
        """Make some edits; the seconds they took. What the editor refuses has changed nothing and counts as tried."""
        begin, begun = time.perf_counter(), time.process_time()
        try:
            self.editor.edit(self.lm, requests)
            self._applied += len(requests)
        except EditError as error:
            if not self.editor.prepared:
                raise
            self.notes.append(f"{', '.join(request.id for request in requests)} was refused: {error}")
        self.cpu_seconds += time.process_time() - begun
        return time.perf_counter() - begin

    def clear(self) -> None:
        """Let the editor take everything back, and make sure that it is."""
        try:
            if self._applied:
                self.editor.rollback(self.lm, self._applied)
        except EditError as error:
            why = str(error).rpartition(": ")[2].partition(". ")[0].rstrip(".")  # without the request it begins with
            note = f"the editor cannot undo, so weights were put back from a copy ({why})"
            self.notes += [note] if note not in self.notes else []
            self.put_back()
            return
        distance = self._distance()
        self.residual = max(self.residual, distance)
        if distance or self.editor.requests:
            self.put_back()
        else:
            self.undone += 1
        self._applied = 0

    def put_back(self) -> None:
        """Weights and editor as they were; nothing happens where they are."""
        if self._applied or self._distance():
            with torch.no_grad():
                for weight, clean in zip(self._now(), self._weights, strict=True):
                    weight.copy_(clean)
            self.editor.load_state_dict(copy.deepcopy(self._state))
            self.editor.attach(self.lm)
            self._applied = 0

    def _now(self) -> list[Tensor]:
        weights = self.editor.weights(self.lm)
        if len(weights) != len(self._weights):
            raise EditError(
                f"found {len(weights)} edited weights, expected the {len(self._weights)} there were before the first "
                f"edit; {type(self.editor).__name__}.weights has to name the same ones at any time."
            )
        return weights

    def _distance(self) -> float:
        """||W - W_0|| / ||W_0||, and never 0 where a bit differs."""
        now = [weight.detach() for weight in self._now()]
        if all(torch.equal(weight, clean) for weight, clean in zip(now, self._weights, strict=True)):
            return 0.0
        moved = sum(float((a.double() - b.double()).square().sum()) for a, b in zip(now, self._weights, strict=True))
        size = sum(float(clean.double().square().sum()) for clean in self._weights)
        return max((moved / size) ** 0.5 if size else 1.0, torch.finfo(torch.float64).tiny)


def _protocol(evaluator: Evaluator) -> Protocol:
    return protocol_of(evaluator.decode, evaluator.options, against_unedited=True, judge=evaluator.judge)
