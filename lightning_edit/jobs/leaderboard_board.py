"""The cells of a leaderboard in their order: which are wanted, which are there already, and playing the rest.

Small loads come first, so that an interrupted run has all editors at some loads and not some editors at all. A cell
that fails keeps its error; the model is clean before the next one, whatever happened.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console

from lightning_edit.algebra import KeyCovariance
from lightning_edit.errors import EditError
from lightning_edit.evaluation.cost import device_name
from lightning_edit.jobs.compare import UNEDITED
from lightning_edit.jobs.inputs import EMBEDDED, gather_moments
from lightning_edit.jobs.leaderboard_cells import Cell, CellFolder, Load
from lightning_edit.jobs.leaderboard_entries import Entry, digest, digest_names, meet
from lightning_edit.jobs.leaderboard_play import Arena
from lightning_edit.jobs.stage import load_model
from lightning_edit.model.language_model import LanguageModel


@dataclass(frozen=True)
class Sources:
    """Where everything comes from.

    Args:
        model: Hub name or folder of the model.
        dtype: Precision of its weights.
        device: Where it goes.
        requests: File of requests, or `embedded`.
        corpus: Text that key statistics are taken from.
        statistics: File of key statistics.
        tokens: Tokens read for them at most.
        seed: Seed of requests and contexts.
        mend: How MEND's network was trained, as plain values.
        trouble: Why there is no such network, though an editor wants one.
    """

    model: str
    dtype: str
    device: str | None
    requests: str
    corpus: str | None
    statistics: str | None
    tokens: int | None
    seed: int
    mend: dict[str, Any]
    trouble: str = ""


class Board:
    """The cells of a leaderboard.

    Args:
        arena: The clean model and what is asked.
        entries: The editors.
        loads: The loads, smallest first.
        sources: Where everything comes from.
        folder: Where cells are kept.
    """

    def __init__(
        self, arena: Arena, entries: Sequence[Entry], loads: Sequence[Load], sources: Sources, folder: CellFolder
    ) -> None:
        self.arena, self.entries, self.loads = arena, list(entries), list(loads)
        self.sources, self.folder = sources, folder
        self._layers: set[int] = set()  # whose key statistics any editor needs
        self._moments: dict[int, KeyCovariance] | str | None = None
        self._mark = mark(arena.lm)
        self._wanted = [*self._cells()]

    def found(self) -> list[Cell]:
        """All cells that were played with these settings, finished or failed."""
        cells = [(self.folder.read(goal.editor, goal.edits), goal) for goal, _, _ in self._wanted]
        return [cell for cell, goal in cells if cell is not None and cell.fingerprint == goal.fingerprint]

    def missing(self) -> list[Cell]:
        """All cells that were not played with these settings, or failed."""
        return [goal for goal, _, _ in self._wanted if self._finished(goal) is None]

    def play(self, deadline: float | None = None) -> None:
        """Play what is missing.

        Args:
            deadline: Start no cell after this moment of `time.perf_counter`.
        """
        console = Console(stderr=True)
        for number, (goal, entry, load) in enumerate(self._wanted, start=1):
            if self._finished(goal) is not None:
                continue
            if deadline is not None and time.perf_counter() >= deadline:
                break
            begin = time.perf_counter()
            goal.where = device_name(self.arena.lm)
            try:
                self._play(goal, entry, load)
            except Exception as error:
                goal.row, goal.error = {}, f"{type(error).__name__}: {error}"
            goal.seconds = time.perf_counter() - begin
            self._clean(goal)
            self.folder.write(goal)
            state = "failed" if goal.error else f"{goal.seconds:.0f} s"
            console.print(f"{number} of {len(self._wanted)}: {goal.editor}, {goal.edits} edits: {state}")

    def _play(self, goal: Cell, entry: Entry | None, load: Load) -> None:
        """Fill in a cell's row."""
        if entry is None:
            goal.row = self.arena.unedited(load.requests)
            return
        if entry.wants_mend:
            raise EditError(self.sources.trouble)
        lm, begin = self.arena.lm, time.perf_counter()
        editor = entry.declared.build(self.sources.seed)
        try:
            editor.prepare(lm, statistics=self._statistics() if editor.needs_statistics else None)
            prepared = time.perf_counter() - begin
            row, goal.notes = self.arena.play(editor, load, entry.at_once(load))
            goal.row = {"editor": entry.declared.name, **row, "prepare_seconds": prepared}
        finally:
            editor.detach(lm)

    def _clean(self, goal: Cell) -> None:
        """Make sure that the model is the clean one; what left it otherwise is a failure, and the weights come anew."""
        lm = self.arena.lm
        lm.memory = None
        if torch.equal(mark(lm), self._mark):
            return
        fresh = load_model(self.sources.model, self.sources.dtype, str(lm.device))
        lm.model.load_state_dict(fresh.model.state_dict())
        goal.row, goal.error = {}, goal.error or "the editor left the model changed; expected the clean one again."

    def _finished(self, goal: Cell) -> Cell | None:
        return self.folder.finished(goal.editor, goal.edits, goal.settings)

    def _statistics(self) -> dict[int, KeyCovariance] | str:
        """Key statistics of the clean model for all editors, read when the first one needs them."""
        if self._moments is None:
            one = self.sources
            given = (one.corpus, one.statistics, one.tokens)
            self._moments = gather_moments(self.arena.lm, one.requests, sorted(self._layers), self.arena.stream, *given)
        return self._moments

    def _cells(self) -> Iterator[tuple[Cell, Entry | None, Load]]:
        """Every wanted cell without its numbers, in the order of playing."""
        one, arena = self.sources, self.arena
        names = [request.subject for request in arena.stream if request.subject] if arena.measuring.tasks else []
        model = {"name": one.model, "identity": arena.lm.identity, "dtype": one.dtype}
        common = {"model": model, "left_out": digest_names(names)}
        largest = self.loads[-1]
        whole = {"load": "none", "requests": digest(arena.stream[: largest.requests])}
        yield Cell(UNEDITED, 0, {**common, **whole, "measuring": arena.measuring.settings(largest)}), None, largest
        met = {}
        for entry in self.entries:
            own = entry.settings(self.sources.mend)
            if not entry.wants_mend:
                numbers, layers = meet(arena.lm, entry, one.seed)
                own |= {"resolved": numbers}
                if layers:
                    keys = {"corpus": one.corpus, "statistics": one.statistics, "tokens": one.tokens}
                    of_model = one.requests != EMBEDDED and one.corpus is None and one.statistics is None
                    own |= {"keys": keys, "sampled_behind": digest(arena.stream) if of_model else None}
                self._layers |= set(layers)
            met[entry.label] = own
        for load in self.loads:
            group = {"edits": load.edits, "groups": load.groups}
            asked = {"measuring": arena.measuring.settings(load), "requests": digest(arena.stream[: load.requests])}
            for entry in self.entries:
                settings = {**common, **asked, "editor": met[entry.label], "load": group, "seed": one.seed}
                settings["batch"] = entry.at_once(load)
                yield Cell(entry.label, load.edits, settings), entry, load


def mark(lm: LanguageModel) -> torch.Tensor:
    """Sums of every parameter and of its squares: what changes when an editor has left something behind.

    Args:
        lm: A language model.
    """
    with torch.no_grad():
        sums = [(weight.double().sum(), weight.double().square().sum()) for weight in lm.model.parameters()]
        return torch.stack([one for pair in sums for one in pair]).cpu()
