"""From cells of events to what the recipe reports: rows, curves over the load, tables, and a CSV file of all cells.

Knows rows of cells. What a report looks like stands in `runner/`.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

from lightning_edit.jobs.cell_results import Shape, cells_as_result, remarks, with_protocol
from lightning_edit.jobs.compare import UNEDITED
from lightning_edit.jobs.leaderboard_cells import Cell
from lightning_edit.runner.results import ReportTable, RunResult, Scalar
from lightning_edit.runner.spread import ONE_SEED

CELLS = "events.csv"
FIRST = ("events", "groups", "asked_events", "edits")
PAPER = {"question_accuracy": "Port.", "locality": "Loc.", "average": "Avg."}
COLUMNS = {
    "event_accuracy": "event",
    "stated_event_accuracy": "event, stated",
    "question_accuracy": "question",
    "question_accuracy/known": "known",
    "question_accuracy/new": "newcomer",
    "held_out_accuracy": "held out",
    "portability/inferred": "inferred",
    "abstention": "unknown",
    "false_abstention": "unknown, wrongly",
    "locality": "locality",
    "cpu_seconds_per_event": "CPU s per event",
}
SHAPE = Shape("events", "event/count", ("editor", "aligned", "protocol", *FIRST))


def make_results(
    labels: Sequence[str],
    found: Sequence[Cell],
    missing: Sequence[Cell],
    notes: Sequence[str],
    output: Path,
    protocol: str,
) -> list[RunResult]:
    """A result for the unedited model and for each editor; tables and remarks on the whole stand with the first.

    Args:
        labels: Labels of the editors.
        found: Cells that were played, finished or failed.
        missing: Cells that were not, or failed.
        notes: Remarks on the events.
        output: Folder that takes the CSV file.
        protocol: How the answers of all these cells were decoded and judged.
    """
    good = [cell for cell in found if cell.error is None]
    with_protocol(good, protocol)
    results = [
        cells_as_result(label, [cell for cell in found if cell.editor == label], SHAPE) for label in (UNEDITED, *labels)
    ]
    first = results[0]
    first.tables = [table for table in (_as_published(good, labels), _by_load(good, labels)) if table.rows]
    first.notes += notes
    first.notes += [*remarks(found, missing), ONE_SEED]
    if good:
        first.files["cells"] = output / CELLS
        write_cells(first.files["cells"], good)
    return results


def write_cells(path: Path, cells: Sequence[Cell]) -> None:
    """All cells as a table: a line for each, the columns that any of them has.

    Args:
        path: The CSV file.
        cells: Cells without error.
    """
    keys = list(dict.fromkeys(["run", "editor", *FIRST, *(key for cell in cells for key in cell.row)]))
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, keys)
        writer.writeheader()
        writer.writerows({"run": cell.editor, **cell.row} for cell in cells)


def _as_published(cells: Sequence[Cell], labels: Sequence[str]) -> ReportTable:
    """Single events beside the longest sequence; *Revisiting*, Tables 35 and 36."""
    loads = _loads(cells)
    ends = list(dict.fromkeys((loads[0], loads[-1]))) if loads else []
    rows: list[list[Scalar | None]] = []
    for label in (UNEDITED, *labels):
        own = [_at(cells, label, load) for load in ends]
        if any(own):
            rows.append([label, *[cell.row.get(key) if cell else None for cell in own for key in PAPER]])
    names = [f"{name} ({load})" for load in ends for name in PAPER.values()]
    text = (
        "Shares in groups of the smallest and of the largest number of events. Port. is the share of all questions "
        "about what an event changes, Loc. that of answers that are still the unedited model's, Avg. the mean of both."
    )
    return ReportTable("Single and sequential events", ["method", *names], rows, text)


def _by_load(cells: Sequence[Cell], labels: Sequence[str]) -> ReportTable:
    """A block for each load, the methods below each other."""
    present = {key: name for key, name in COLUMNS.items() if any(key in cell.row for cell in cells)}
    rows: list[list[Scalar | None]] = []
    for load in _loads(cells):
        for label in (UNEDITED, *labels):
            cell = _at(cells, label, load)
            if cell is not None:
                rows.append([load, label, *[cell.row.get(key) for key in present]])
    text = (
        "`event`: events of which every question is answered right; `stated`: of those questions only whose answer the "
        "event states. `known`, `newcomer`: questions about whom the model knew before, and did not. `held out`: "
        "questions that nobody was taught. `unknown`: questions that an event leaves open, answered so."
    )
    return ReportTable("By number of events", ["events", "method", *present.values()], rows, text)


def _loads(cells: Sequence[Cell]) -> list[int]:
    return sorted({cell.edits for cell in cells if cell.edits})


def _at(cells: Sequence[Cell], label: str, load: int) -> Cell | None:
    """A method's cell at a load; the unedited model's is the same at all of them."""
    return next((cell for cell in cells if cell.editor == label and cell.edits in (load, 0)), None)
