"""The wanted cells of a comparison on events: which editor at which load, and everything that a cell's numbers hang on.

Small loads come first. How a cell is played stands in `events_arena.py`, in which order and what becomes of failures in
`board.py`.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from lightning_edit.jobs.board import Goal, ModelSource
from lightning_edit.jobs.compare import UNEDITED
from lightning_edit.jobs.events_arena import EventArena, EventLoad
from lightning_edit.jobs.leaderboard_cells import Cell
from lightning_edit.jobs.leaderboard_entries import Entry, digest, meet
from lightning_edit.jobs.preparer import KeySource, Preparer


class EventGoals:
    """The cells that are wanted.

    Args:
        arena: The clean model, the events, and what is asked.
        entries: The editors.
        loads: The loads, smallest first.
        model: Where the model came from.
        keys: Where key statistics come from.
        seed: Seed of events and contexts.
    """

    def __init__(
        self,
        arena: EventArena,
        entries: Sequence[Entry],
        loads: Sequence[EventLoad],
        model: ModelSource,
        keys: KeySource,
        seed: int,
    ) -> None:
        self.arena, self.entries, self.loads = arena, list(entries), list(loads)
        self.model, self.keys, self.seed = model, keys, seed
        texts = [request for event in arena.events for request in event.requests]
        self._preparer = Preparer(arena.lm, keys, texts, seed)

    def __iter__(self) -> Iterator[Goal]:
        """Every wanted cell without its numbers, in the order of playing."""
        arena, largest = self.arena, self.loads[-1]
        model = {"name": self.model.name, "identity": arena.lm.identity, "dtype": self.model.dtype}
        common = {"model": model, "measuring": arena.measuring.settings()}
        yield Goal(Cell(UNEDITED, 0, {**common, **self._load(largest)}), self._unedited, UNEDITED)
        met = {entry.label: self._meet(entry) for entry in self.entries}
        for load in self.loads:
            for entry in self.entries:
                settings = {**common, **self._load(load), "seed": self.seed, "editor": met[entry.label]}
                what = f"{entry.label}, events: {load.events}"
                play = partial(self._play, entry=entry, load=load)
                yield Goal(Cell(entry.label, load.events, settings), play, what)

    def _play(self, cell: Cell, entry: Entry, load: EventLoad) -> None:
        """Fill in an editor's cell."""
        self._preparer.play(entry, cell, lambda editor: self.arena.play(editor, load, entry.batch))

    def _unedited(self, cell: Cell) -> None:
        cell.row = self.arena.unedited(self.loads[-1])

    def _meet(self, entry: Entry) -> dict[str, Any]:
        """What the numbers of one editor hang on."""
        numbers, layers = meet(self.arena.lm, entry, self.seed)
        self._preparer.layers |= set(layers)
        own = {**entry.settings({}), "resolved": numbers, "keys": vars(self.keys) if layers else None}
        return own | ({"batch": entry.batch} if entry.batch else {})

    def _load(self, load: EventLoad) -> dict[str, Any]:
        """What the numbers of a load hang on."""
        events = self.arena.events[: load.total]
        return {"load": vars(load), "events": digest(request for event in events for request in event.requests)}
