"""Declared editors made ready for a clean model, cell after cell, with key statistics that are read once.

Knows what an editor needs before its first edit. What it is handed then, whoever plays it knows.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_edit.algebra import KeyCovariance
from lightning_edit.editors.editor import Editor
from lightning_edit.jobs.inputs import gather_moments
from lightning_edit.jobs.leaderboard_cells import Cell
from lightning_edit.jobs.leaderboard_entries import Entry
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.requests import EditRequest


@dataclass(frozen=True)
class KeySource:
    """Where key statistics come from.

    Args:
        requests: Source of the requests, which says what text there is beside them.
        corpus: Text that they are taken from.
        statistics: File of them.
        tokens: Tokens read at most.
    """

    requests: str
    corpus: str | None
    statistics: str | None
    tokens: int | None


class Preparer:
    """What makes a declared editor ready for its first edit: key statistics, read when the first editor needs them.

    Args:
        lm: The clean model.
        source: Where key statistics come from.
        stream: Requests whose prompts the model may be asked to go on from, where there is no text.
        seed: Seed of contexts.
    """

    def __init__(self, lm: LanguageModel, source: KeySource, stream: Sequence[EditRequest], seed: int) -> None:
        self.lm, self.source, self.seed = lm, source, seed
        self.layers: set[int] = set()  # whose statistics any editor needs
        self._stream = stream
        self._moments: dict[int, KeyCovariance] | str | None = None

    def play(self, entry: Entry, cell: Cell, play: Callable[[Editor], tuple[dict[str, Any], list[str]]]) -> float:
        """Fill a cell with what a prepared editor comes to, and take the editor off again; the seconds of preparing.

        Args:
            entry: The editor.
            cell: The cell.
            play: Makes a row and notes.
        """
        begin = time.perf_counter()
        editor = entry.declared.build(self.seed)
        try:
            editor.prepare(self.lm, statistics=self._statistics() if editor.needs_statistics else None)
            seconds = time.perf_counter() - begin
            row, cell.notes = play(editor)
            cell.row = {"editor": entry.declared.name, **row}
        finally:
            editor.detach(self.lm)
        return seconds

    def _statistics(self) -> dict[int, KeyCovariance] | str:
        """Key statistics of the clean model for all editors."""
        if self._moments is None:
            one = self.source
            given = (one.corpus, one.statistics, one.tokens)
            self._moments = gather_moments(self.lm, one.requests, sorted(self.layers), self._stream, *given)
        return self._moments
