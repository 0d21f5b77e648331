"""One editor at one load of events: groups of events told to the clean model, and everything that is asked about them.

An event reaches an editor as its question-answer pairs, or triples, at once or one after another; a text memory keeps
the event's text of them. Groups of one are single editing, one large group is a sequence. Which editors and loads
there are stands in `events.py`.
"""

import copy
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_edit.editors.editor import Editor
from lightning_edit.errors import EditError
from lightning_edit.evaluation import AnswerOptions, Baseline, Outcome, ask, measure_baseline
from lightning_edit.evaluation.answering import Decoding
from lightning_edit.evaluation.cost import Latency, measure_latency, state_bytes
from lightning_edit.evaluation.quality import protocol_of
from lightning_edit.jobs.events_scores import score_events
from lightning_edit.jobs.events_stream import EventEdits
from lightning_edit.judges.build import get_judge
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.requests import EditRequest
from lightning_edit.runner.results import Scalar

TIMED_PROMPTS = 2


@dataclass(frozen=True)
class EventLoad:
    """How many events a model carries when it is asked.

    Args:
        events: Events in a group; each group starts from the clean model.
        groups: Number of groups; they share out the first `events` times `groups` events.
    """

    events: int = 1
    groups: int = 1

    def __post_init__(self) -> None:
        if self.events < 1 or self.groups < 1:
            raise EditError(f"found {self}, expected at least one event and one group.")

    @property
    def total(self) -> int:
        """Number of events that it takes."""
        return self.events * self.groups


@dataclass
class EventMeasuring:
    """What is asked of a model that carries events.

    Args:
        budget: Events of a group that are asked about, evenly spread from the oldest to the newest, each with all its
            questions; all where absent.
        decode: greedy lets the model write and judges its answer; teacher_forced is cheaper and flatters.
        answers: Lengths, chat template, reasoning, and where an answer ends.
        judge: exact_match where absent, begins, contains, or class_path and init_args of a judge.
        latency: Timed runs of inference for each of two prompts, before and after the first group; 0 for none.
    """

    budget: int | None = 20
    decode: Decoding = "greedy"
    answers: AnswerOptions = field(default_factory=AnswerOptions)
    judge: str | dict[str, Any] | None = None
    latency: int = 0

    def __post_init__(self) -> None:
        if self.budget is not None and self.budget < 1:
            raise EditError(f"found budget={self.budget}, expected at least one event, or nothing for all of them.")

    def settings(self) -> dict[str, Any]:
        """What a cell's numbers hang on, as plain values."""
        plain = asdict(self)
        plain["answers"].pop("batch_size")  # how many rows run at once changes no answer
        return plain

    def asked(self, group: Sequence[EventEdits]) -> list[EventEdits]:
        """The events of a group that are asked about, the oldest and the newest among them.

        Args:
            group: The events, in order.
        """
        if self.budget is None or self.budget >= len(group):
            return list(group)
        if self.budget == 1:
            return [group[-1]]
        return [group[round(place * (len(group) - 1) / (self.budget - 1))] for place in range(self.budget)]


class EventArena:
    """A clean model that carries groups of events, one after another.

    Args:
        lm: The clean model.
        events: All events.
        measuring: What is asked.
    """

    def __init__(self, lm: LanguageModel, events: Sequence[EventEdits], measuring: EventMeasuring) -> None:
        self.lm, self.events, self.measuring = lm, events, measuring
        self._judge = get_judge(measuring.judge)
        self._clean = Baseline(measuring.answers)

    @property
    def protocol(self) -> str:
        """How answers are decoded, read and judged, on one line."""
        one = self.measuring
        return protocol_of(one.decode, one.answers, against_unedited=True, judge=self._judge).name

    def play(self, editor: Editor, load: EventLoad, batch: int | None = None) -> tuple[dict[str, Scalar], list[str]]:
        """A row of numbers and remarks; afterwards weights and editor are as they were.

        Args:
            editor: A prepared editor with no edits at work.
            load: The load.
            batch: Edits of an event that are handed over at once; all of them where None.
        """
        groups = self.groups(load)
        self._know(groups)
        before = self._latency(groups[0])
        start, notes, outcomes, costs = _Start(editor, self.lm), list[str](), list[Outcome](), dict[str, float]()
        seconds, cpu_seconds, refused = 0.0, 0.0, 0
        for group in groups:
            try:
                for event in group:
                    taken, cpu, trouble = _tell(editor, self.lm, event, batch)
                    seconds, cpu_seconds, refused = seconds + taken, cpu_seconds + cpu, refused + bool(trouble)
                    notes += trouble
                costs = costs or self._costs(editor, group, before)
                outcomes += self._ask(group)
            finally:
                start.again()
        edits = sum(len(event.requests) for group in groups for event in group)
        row: dict[str, Scalar] = {"aligned": editor.aligned, **self._counts(load), "edits": edits // load.groups}
        row |= score_events(outcomes, _edits(event for group in groups for event in self.measuring.asked(group)))
        cost = {"seconds_per_event": seconds / load.total, "cpu_seconds_per_event": cpu_seconds / load.total}
        return row | cost | costs | {"refused_events": refused}, notes

    def unedited(self, load: EventLoad) -> dict[str, Scalar]:
        """The clean model's row.

        Args:
            load: The load whose questions are asked.
        """
        groups = self.groups(load)
        self._know(groups)
        outcomes = [outcome for group in groups for outcome in self._ask(group)]
        asked = _edits(event for group in groups for event in self.measuring.asked(group))
        latency = self._latency(groups[0])
        timed = {"latency_seconds": latency.median, "latency_ratio": 1.0} if latency else {}
        return {**self._counts(load), "events": 0, "edits": 0, **score_events(outcomes, asked), **timed}

    def groups(self, load: EventLoad) -> list[Sequence[EventEdits]]:
        """The groups of a load.

        Args:
            load: The load.
        """
        return [self.events[start : start + load.events] for start in range(0, load.total, load.events)]

    def _counts(self, load: EventLoad) -> dict[str, Scalar]:
        asked = sum(len(self.measuring.asked(group)) for group in self.groups(load))
        counts = {"events": load.events, "groups": load.groups, "asked_events": asked}
        return {**counts, "protocol": self.protocol}

    def _know(self, groups: Iterable[Sequence[EventEdits]]) -> None:
        """Complete what the clean model answers."""
        for group in groups:
            measure_baseline(self.lm, _edits(self.measuring.asked(group)), into=self._clean)

    def _ask(self, group: Sequence[EventEdits]) -> list[Outcome]:
        """Every question about the chosen events of a group."""
        one, active = self.measuring, _edits(group)
        asked = _edits(one.asked(group))
        return ask(self.lm, asked, self._clean, one.decode, one.answers, active, self._judge)

    def _latency(self, group: Sequence[EventEdits]) -> Latency | None:
        prompts = [request.prompt for request in _edits(group)[:TIMED_PROMPTS]]
        runs = self.measuring.latency
        return measure_latency(self.lm, prompts, runs=runs) if runs else None

    def _costs(self, editor: Editor, group: Sequence[EventEdits], before: Latency | None) -> dict[str, float]:
        """Latency against the clean model's, and how much an editor keeps."""
        found = {"state_bytes": float(state_bytes(editor.state_dict()))}
        now = self._latency(group)
        if now is not None and before is not None:
            found |= {"latency_seconds": now.median, "latency_ratio": now.relative_to(before)}
        return found


class _Start:
    """An editor without edits in the clean model, and the way back to it."""

    def __init__(self, editor: Editor, lm: LanguageModel) -> None:
        editor.attach(lm)
        if editor.requests:
            raise EditError(f"found {len(editor.requests)} edits at work, expected an editor without any.")
        self._editor, self._lm = editor, lm
        self._weights: list[Tensor] = [weight.detach().clone() for weight in editor.weights(lm)]
        self._state = copy.deepcopy(editor.state_dict())

    def again(self) -> None:
        """Weights and editor as they were, bit for bit."""
        with torch.no_grad():
            for weight, clean in zip(self._editor.weights(self._lm), self._weights, strict=True):
                weight.copy_(clean)
        self._editor.load_state_dict(copy.deepcopy(self._state))
        self._editor.attach(self._lm)


def _tell(editor: Editor, lm: LanguageModel, event: EventEdits, batch: int | None) -> tuple[float, float, list[str]]:
    """Make an event's edits; the seconds they took by the clock and on the processor, and why they were refused.

    What an editor refuses has changed nothing and counts as told.
    """
    begin, cpu, trouble = time.perf_counter(), time.process_time(), list[str]()
    size = batch or len(event.requests)
    for start in range(0, len(event.requests), size):
        try:
            editor.edit(lm, event.requests[start : start + size])
        except EditError as error:
            if not editor.prepared:
                raise
            trouble.append(f"{event.id} was refused: {error}")
    return time.perf_counter() - begin, time.process_time() - cpu, trouble


def _edits(events: Iterable[EventEdits]) -> list[EditRequest]:
    return [request for event in events for request in event.requests]
