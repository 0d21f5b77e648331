"""`leaderboard_events`: every editor, the same events, several loads.

Question 3 of *Revisiting* (arXiv 2606.00570; Tables 35 and 36, Figure 4): can editors take in events, of which many
questions hang? Text memories are told an event's text, all others its question-answer pairs or triples. Knows the order
of cells, each of which is kept in a file; how one is played stands in `events_arena.py`.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from lightning_edit.algebra import KeyCovariance
from lightning_edit.errors import EditError
from lightning_edit.evaluation.cost import device_name
from lightning_edit.jobs.compare import UNEDITED
from lightning_edit.jobs.events_arena import EventArena, EventLoad, EventMeasuring
from lightning_edit.jobs.events_report import make_results
from lightning_edit.jobs.events_stream import draw_events
from lightning_edit.jobs.events_world import Taught
from lightning_edit.jobs.inputs import Choice, gather_moments
from lightning_edit.jobs.leaderboard_board import mark
from lightning_edit.jobs.leaderboard_cells import Cell, CellFolder
from lightning_edit.jobs.leaderboard_entries import Entry, digest, meet
from lightning_edit.jobs.stage import load_model
from lightning_edit.runner.results import RunResult

LOADS = (EventLoad(1, 10), EventLoad(10, 2), EventLoad(50), EventLoad(100))


def events(
    output: Path,
    editors: dict[str, dict[str, Any]],
    shared: dict[str, Any] | None = None,
    model: str = "embedded",
    requests: str = "embedded",
    loads: list[EventLoad] | None = None,
    measuring: EventMeasuring | None = None,
    corpus: str | None = None,
    statistics: str | None = None,
    tokens: int | None = None,
    dtype: str = "float32",
    choice: Choice = "first",
    taught: Taught = "pairs",
    seed: int = 0,
    minutes: float | None = None,
    device: str | None = None,
) -> list[RunResult]:
    """Let every editor take in the same events at several loads, and ask everything about them.

    Cells lie in `cells` in the output folder. A rerun plays those that are missing, failed, or were played with other
    settings; the rest is read. A cell that fails is recorded with its error, and the others go on.

    Args:
        output: Folder of the report.
        editors: Label to an editor's options; `editor` among them is its name (memit if absent), `batch` the edits of
            an event that it is handed at once, all of them where absent, `shortened` what is less than published, in
            words.
        shared: Options of all editors that know them.
        model: Hub name or folder of a causal LM with its tokenizer; "embedded" is the embedded world's model.
        requests: ELKEN file, file of triples that `convert_events` wrote, or any request file with groups, local or on
            the Hub (`hf://datasets/...`); "embedded" for events of the embedded world.
        loads: Numbers of events; 1 in 10 groups, 10 in 2, 50 and 100 where absent.
        measuring: What is asked.
        corpus: Text or JSONL file to take key statistics from; the embedded world's documents, or else the model's own
            text, where absent.
        statistics: Safetensors file of key statistics of this model, instead of a corpus.
        tokens: Tokens read for key statistics at most; twenty for each unit of the inner width where absent.
        dtype: Precision of the weights.
        choice: first takes the first events of a file in their order, random draws their order from the seed.
        taught: What editors of weights are taught of the embedded world's events: `pairs` of question and answer, or
            `statements`, as triples are, with all questions held out. A file says so by itself.
        seed: Seed of the events, and of contexts where an editor samples any.
        minutes: Start no further cell after so many minutes; 0 reports what there is. Run again to go on.
        device: Where the model goes; the first GPU, or else the CPU, where absent.
    """
    deadline = None if minutes is None else time.perf_counter() + 60 * minutes
    plans = sorted(loads or LOADS, key=lambda load: load.events)
    if len({load.events for load in plans}) < len(plans) or UNEDITED in editors:
        raise EditError(
            f"found loads of {[load.events for load in plans]} events and editors {', '.join(editors)}; expected "
            f"different loads, and no editor with the label {UNEDITED}."
        )
    entries = [Entry.read(label, options, shared or {}) for label, options in editors.items()]
    untrained = [entry.label for entry in entries if entry.wants_mend]
    if untrained:
        raise EditError(
            f"found no network for {', '.join(untrained)}, expected `checkpoint` among its options. Train one: "
            "lightning-edit run train_mend"
        )
    drawn = draw_events(requests, max(load.total for load in plans), seed, choice, taught)
    lm = load_model(model, dtype, device)
    keys = KeySources(requests, corpus, statistics, tokens)
    board = EventBoard(
        EventArena(lm, drawn.events, measuring or EventMeasuring()),
        entries,
        plans,
        keys,
        {"name": model, "identity": lm.identity, "dtype": dtype},
        seed,
        CellFolder(output / "cells"),
    )
    board.play(deadline)
    return make_results([entry.label for entry in entries], board.found(), board.missing(), drawn.notes, output)


@dataclass(frozen=True)
class KeySources:
    """Where key statistics come from.

    Args:
        requests: Source of the events.
        corpus: Text that they are taken from.
        statistics: File of them.
        tokens: Tokens read at most.
    """

    requests: str
    corpus: str | None
    statistics: str | None
    tokens: int | None


@dataclass
class _Goal:
    """A wanted cell, and who plays it at which load."""

    cell: Cell
    entry: Entry | None
    load: EventLoad


class EventBoard:
    """The cells, small loads first, so that a run that was stopped has all editors at some loads.

    Args:
        arena: The clean model, the events, and what is asked.
        entries: The editors.
        loads: The loads, smallest first.
        keys: Where key statistics come from.
        model: What the model is, as plain values.
        seed: Seed of events and contexts.
        folder: Where cells are kept.
    """

    def __init__(
        self,
        arena: EventArena,
        entries: Sequence[Entry],
        loads: Sequence[EventLoad],
        keys: KeySources,
        model: dict[str, str],
        seed: int,
        folder: CellFolder,
    ) -> None:
        self.arena, self.entries, self.loads = arena, list(entries), list(loads)
        self.keys, self.model, self.seed, self.folder = keys, model, seed, folder
        self._layers: set[int] = set()  # whose key statistics any editor needs
        self._moments: dict[int, KeyCovariance] | str | None = None
        self._mark = mark(arena.lm)
        self._goals = [*self._wanted()]

    def found(self) -> list[Cell]:
        """All cells that were played with these settings, finished or failed."""
        cells = [(self.folder.read(goal.cell.editor, goal.cell.edits), goal.cell) for goal in self._goals]
        return [cell for cell, wanted in cells if cell is not None and cell.fingerprint == wanted.fingerprint]

    def missing(self) -> list[Cell]:
        """All cells that were not played with these settings, or failed."""
        return [goal.cell for goal in self._goals if not self._finished(goal.cell)]

    def play(self, deadline: float | None = None) -> None:
        """Play what is missing.

        Args:
            deadline: Start no cell after this moment of `time.perf_counter`.
        """
        todo = [goal for goal in self._goals if not self._finished(goal.cell)]
        with Progress(transient=True) as progress:
            task = progress.add_task("cells", total=len(todo))
            for goal in todo:
                if deadline is not None and time.perf_counter() >= deadline:
                    break
                progress.update(task, description=f"{goal.cell.editor}, {goal.cell.edits} events")
                begin, goal.cell.where = time.perf_counter(), device_name(self.arena.lm)
                try:
                    self._play(goal)
                except Exception as error:  # one method's failure is a result, and no other's
                    goal.cell.row, goal.cell.error = {}, f"{type(error).__name__}: {error}"
                goal.cell.seconds = time.perf_counter() - begin
                self._make_sure_it_is_clean(goal.cell)
                self.folder.write(goal.cell)
                progress.advance(task)

    def _play(self, goal: _Goal) -> None:
        """Fill in a cell's row."""
        if goal.entry is None:
            goal.cell.row = self.arena.unedited(goal.load)
            return
        editor = goal.entry.declared.build(self.seed)
        try:
            editor.prepare(self.arena.lm, statistics=self._statistics() if editor.needs_statistics else None)
            row, goal.cell.notes = self.arena.play(editor, goal.load, goal.entry.batch)
            goal.cell.row = {"editor": goal.entry.declared.name, **row}
        finally:
            editor.detach(self.arena.lm)

    def _make_sure_it_is_clean(self, cell: Cell) -> None:
        """What leaves the model otherwise than it was has failed, and the weights come anew."""
        lm = self.arena.lm
        lm.memory = None
        if not torch.equal(mark(lm), self._mark):
            fresh = load_model(self.model["name"], self.model["dtype"], str(lm.device))
            lm.model.load_state_dict(fresh.model.state_dict())
            cell.row, cell.error = {}, cell.error or "the editor left the model changed; expected the clean one again."

    def _finished(self, cell: Cell) -> bool:
        return self.folder.finished(cell.editor, cell.edits, cell.settings) is not None

    def _statistics(self) -> dict[int, KeyCovariance] | str:
        """Key statistics of the clean model for all editors, read when the first one needs them."""
        if self._moments is None:
            texts = [request for event in self.arena.events for request in event.requests]
            one = self.keys
            given = (one.corpus, one.statistics, one.tokens)
            self._moments = gather_moments(self.arena.lm, one.requests, sorted(self._layers), texts, *given)
        return self._moments

    def _wanted(self) -> Iterator[_Goal]:
        """Every wanted cell without its numbers, in the order of playing."""
        arena = self.arena
        common = {"model": self.model, "measuring": arena.measuring.settings()}
        largest = self.loads[-1]
        settings = {**common, "load": vars(largest), "events": self._digest(largest)}
        yield _Goal(Cell(UNEDITED, 0, settings), None, largest)
        met = {}
        for entry in self.entries:
            numbers, layers = meet(arena.lm, entry, self.seed)
            self._layers |= set(layers)
            met[entry.label] = {**entry.settings({}), "resolved": numbers, "keys": vars(self.keys) if layers else None}
            met[entry.label] |= {"batch": entry.batch} if entry.batch else {}
        for load in self.loads:
            for entry in self.entries:
                of_load = {"load": vars(load), "events": self._digest(load), "seed": self.seed}
                yield _Goal(
                    Cell(entry.label, load.events, {**common, **of_load, "editor": met[entry.label]}), entry, load
                )

    def _digest(self, load: EventLoad) -> str:
        return digest(request for event in self.arena.events[: load.total] for request in event.requests)
