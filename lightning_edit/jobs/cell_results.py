"""Cells of one editor as a row, curves over the load and remarks, and the remarks on all cells.

Knows rows of cells; which tables are made of them, each job says.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_edit.jobs.compare import UNEDITED
from lightning_edit.jobs.leaderboard_cells import Cell
from lightning_edit.runner.results import Curve, RunResult

MOST_NOTES = 3


@dataclass(frozen=True)
class Shape:
    """How a job reports its cells.

    Args:
        unit: What a load counts.
        axis: Key of the curves' x values.
        once: Keys that are the same at every load, or say what the load is: no curve, and once in a row.
    """

    unit: str
    axis: str
    once: tuple[str, ...]


def cells_as_result(label: str, cells: Sequence[Cell], shape: Shape) -> RunResult:
    """One editor's cells as a row, with curves over the load.

    The row has the numbers of the largest finished load by their own names, and those of the smallest with `single_`
    before them, or `smallest_` where that is more than one.

    Args:
        label: Label of the editor.
        cells: Its cells, finished or failed.
        shape: How the job reports them.
    """
    result = RunResult(label)
    good = sorted((cell for cell in cells if cell.error is None), key=lambda cell: cell.edits)
    if good:
        small, large = good[0], good[-1]
        result.row = dict(large.row)
        if small.edits < large.edits:
            prefix = "single_" if small.edits == 1 else "smallest_"
            result.row |= {f"{prefix}{key}": value for key, value in small.row.items() if key not in shape.once}
    for cell in good if label != UNEDITED else ():
        _add(result, cell, shape)
    result.notes = [f"{cell.edits} {shape.unit}: {note}" for cell in good for note in _worth_saying(cell.notes)]
    result.errors = [f"{cell.edits} {shape.unit}: {cell.error}" for cell in cells if cell.error]
    if result.errors:
        result.row["failed_cells"] = len(result.errors)
    return result


def with_protocol(cells: Sequence[Cell], protocol: str) -> None:
    """Say in each row how its answers were decoded and judged; cells of earlier versions do not hold it.

    Args:
        cells: Cells without error, which were all played with the settings that the protocol is of.
        protocol: The protocol on one line.
    """
    for cell in cells:
        cell.row = {**cell.row, "protocol": protocol}


def remarks(found: Sequence[Cell], missing: Sequence[Cell]) -> list[str]:
    """Which cells are not there yet, and how long those took that are.

    Args:
        found: Cells that were played, finished or failed.
        missing: Cells that were not, or failed.
    """
    good, said = [cell for cell in found if cell.error is None], []
    failed = {(cell.editor, cell.edits) for cell in found if cell.error}
    waiting = [f"{cell.editor} ({cell.edits})" for cell in missing if (cell.editor, cell.edits) not in failed]
    if waiting:
        said.append(f"{len(waiting)} cells were not played yet, run again to go on: {', '.join(waiting)}")
    if good:
        minutes, places = sum(cell.seconds for cell in good) / 60, sorted({cell.where for cell in good})
        said.append(f"{len(good)} cells, {minutes:.0f} minutes, on {'; '.join(places)}")
    return said


def _add(result: RunResult, cell: Cell, shape: Shape) -> None:
    """Put a cell's numbers on the curves."""
    for key, value in {**cell.row, shape.axis: cell.edits}.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and key not in shape.once:
            curve = result.curves.setdefault(key if "/" in key else f"edit/{key}", Curve())
            curve.steps.append(cell.edits)
            curve.values.append(float(value))


def _worth_saying(notes: Sequence[str]) -> list[str]:
    """The first remarks, and how many more there are: a refused edit makes one each.

    That an editor cannot undo is said by `undone` in its row, and the groups start from the clean model anyhow.
    """
    kept = [note for note in notes if not note.startswith("the editor cannot undo")]
    more = len(kept) - MOST_NOTES
    return [*kept[:MOST_NOTES], *([f"and {more} more remarks"] if more > 0 else [])]
