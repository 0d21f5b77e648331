"""The wanted cells of a leaderboard: which editor at which load, and everything that a cell's numbers hang on.

Small loads come first. Knows what identifies a cell; how one is played stands in `leaderboard_play.py`, in which order
and what becomes of failures in `board.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from lightning_edit.errors import EditError
from lightning_edit.jobs.board import Goal, ModelSource
from lightning_edit.jobs.compare import UNEDITED
from lightning_edit.jobs.inputs import EMBEDDED
from lightning_edit.jobs.leaderboard_cells import Cell, Load
from lightning_edit.jobs.leaderboard_entries import Entry, digest, digest_names, meet
from lightning_edit.jobs.leaderboard_play import Arena
from lightning_edit.jobs.preparer import KeySource, Preparer


@dataclass(frozen=True)
class Sources:
    """Where everything comes from.

    Args:
        model: The model.
        keys: Key statistics.
        seed: Seed of requests and contexts.
        mend: How MEND's network was trained, as plain values.
        trouble: Why there is no such network, though an editor wants one.
    """

    model: ModelSource
    keys: KeySource
    seed: int
    mend: dict[str, Any]
    trouble: str = ""


class Goals:
    """The cells that a leaderboard wants.

    Args:
        arena: The clean model and what is asked.
        entries: The editors.
        loads: The loads, smallest first.
        sources: Where everything comes from.
    """

    def __init__(self, arena: Arena, entries: Sequence[Entry], loads: Sequence[Load], sources: Sources) -> None:
        self.arena, self.entries, self.loads, self.sources = arena, list(entries), list(loads), sources
        self._preparer = Preparer(arena.lm, sources.keys, arena.stream, sources.seed)

    def __iter__(self) -> Iterator[Goal]:
        """Every wanted cell without its numbers, in the order of playing."""
        arena, largest, common = self.arena, self.loads[-1], self._common()
        whole = {"load": "none", "requests": digest(arena.stream[: largest.requests])}
        settings = {**common, **whole, "measuring": arena.measuring.settings(largest)}
        yield Goal(Cell(UNEDITED, 0, settings), self._unedited, UNEDITED)
        met = {entry.label: self._meet(entry) for entry in self.entries}
        for load in self.loads:
            group = {"edits": load.edits, "groups": load.groups}
            asked = {"measuring": arena.measuring.settings(load), "requests": digest(arena.stream[: load.requests])}
            for entry in self.entries:
                settings = {**common, **asked, "editor": met[entry.label], "load": group, "seed": self.sources.seed}
                settings["batch"] = entry.at_once(load)
                what = f"{entry.label}, edits: {load.edits}"
                yield Goal(Cell(entry.label, load.edits, settings), partial(self._play, entry=entry, load=load), what)

    def _play(self, cell: Cell, entry: Entry, load: Load) -> None:
        """Fill in an editor's cell."""
        if entry.wants_mend:
            raise EditError(self.sources.trouble)
        at_once = entry.at_once(load)
        seconds = self._preparer.play(entry, cell, lambda editor: self.arena.play(editor, load, at_once))
        cell.row["prepare_seconds"] = seconds

    def _unedited(self, cell: Cell) -> None:
        cell.row = self.arena.unedited(self.loads[-1].requests)

    def _common(self) -> dict[str, Any]:
        """What the numbers of all cells hang on."""
        source, stream = self.sources.model, self.arena.stream
        names = [request.subject for request in stream if request.subject] if self.arena.measuring.tasks else []
        model = {"name": source.name, "identity": self.arena.lm.identity, "dtype": source.dtype}
        return {"model": model, "left_out": digest_names(names)}

    def _meet(self, entry: Entry) -> dict[str, Any]:
        """What the numbers of one editor hang on."""
        own, keys = entry.settings(self.sources.mend), self.sources.keys
        if entry.wants_mend:
            return own
        numbers, layers = meet(self.arena.lm, entry, self.sources.seed)
        own |= {"resolved": numbers}
        if layers:
            of_model = keys.requests != EMBEDDED and keys.corpus is None and keys.statistics is None
            own |= {"keys": {"corpus": keys.corpus, "statistics": keys.statistics, "tokens": keys.tokens}}
            own |= {"sampled_behind": "the start token" if of_model else None}
        self._preparer.layers |= set(layers)
        return own
