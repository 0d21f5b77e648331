"""The cells of a comparison in their order: which are there already, and playing the rest.

A cell that fails keeps its error; the model is clean before the next one, whatever happened. Knows cells and the model;
what makes a cell's numbers, each goal says.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from rich.console import Console

from lightning_edit.evaluation.cost import device_name, reset_peak_cuda
from lightning_edit.jobs.leaderboard_cells import Cell, CellFolder
from lightning_edit.jobs.stage import load_model
from lightning_edit.model.language_model import LanguageModel


@dataclass
class Goal:
    """A cell that is wanted.

    Args:
        cell: The cell, without its numbers.
        play: Fills in its row and notes; raises what makes it fail.
        what: What it says to a person who waits.
    """

    cell: Cell
    play: Callable[[Cell], None]
    what: str


@dataclass(frozen=True)
class ModelSource:
    """Where the clean model came from, and comes from again when an editor has left it changed.

    Args:
        name: Hub name or folder.
        dtype: Precision of its weights.
    """

    name: str
    dtype: str


class Board:
    """The cells of a comparison.

    Args:
        lm: The clean model.
        source: Where it came from.
        goals: The wanted cells, in the order of playing: small loads first, so that a run that was stopped has all
            editors at some loads and not some editors at all.
        folder: Where cells are kept.
    """

    def __init__(self, lm: LanguageModel, source: ModelSource, goals: Sequence[Goal], folder: CellFolder) -> None:
        self.lm, self.source, self.goals, self.folder = lm, source, list(goals), folder
        self._mark = mark(lm)

    def found(self) -> list[Cell]:
        """All cells that were played with these settings, finished or failed."""
        cells = [(self.folder.read(goal.cell.editor, goal.cell.edits), goal.cell) for goal in self.goals]
        return [cell for cell, wanted in cells if cell is not None and cell.fingerprint == wanted.fingerprint]

    def missing(self) -> list[Cell]:
        """All cells that were not played with these settings, or failed."""
        return [goal.cell for goal in self.goals if not self._finished(goal.cell)]

    def play(self, deadline: float | None = None) -> None:
        """Play what is missing, and say a line for each cell.

        Args:
            deadline: Start no cell after this moment of `time.perf_counter`.
        """
        console = Console(stderr=True)
        for number, goal in enumerate(self.goals, start=1):
            cell = goal.cell
            if self._finished(cell):
                continue
            if deadline is not None and time.perf_counter() >= deadline:
                break
            begin = time.perf_counter()
            cell.where = device_name(self.lm)
            reset_peak_cuda(self.lm.device)  # else a cell would be charged with what one before it took
            try:
                goal.play(cell)
            except Exception as error:  # one method's failure is a result, and no other's
                cell.row, cell.error = {}, f"{type(error).__name__}: {error}"
            cell.seconds = time.perf_counter() - begin
            self._clean(cell)
            self.folder.write(cell)
            state = "failed" if cell.error else f"{cell.seconds:.0f} s"
            console.print(f"{number} of {len(self.goals)}: {goal.what} ({state})", highlight=False)

    def _clean(self, cell: Cell) -> None:
        """Make sure that the model is the clean one; what left it otherwise is a failure, and the weights come anew."""
        self.lm.memory = None
        if torch.equal(mark(self.lm), self._mark):
            return
        fresh = load_model(self.source.name, self.source.dtype, str(self.lm.device))
        self.lm.model.load_state_dict(fresh.model.state_dict())
        cell.row, cell.error = {}, cell.error or "the editor left the model changed; expected the clean one again."

    def _finished(self, cell: Cell) -> bool:
        return self.folder.finished(cell.editor, cell.edits, cell.settings) is not None


def mark(lm: LanguageModel) -> torch.Tensor:
    """Sums of every parameter and of its squares: what changes when an editor has left something behind.

    Args:
        lm: A language model.
    """
    with torch.no_grad():
        sums = [(weight.double().sum(), weight.double().square().sum()) for weight in lm.model.parameters()]
        return torch.stack([one for pair in sums for one in pair]).cpu()
