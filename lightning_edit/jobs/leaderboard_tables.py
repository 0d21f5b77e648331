"""Tables of a leaderboard in the shape of *Revisiting*'s (arXiv 2606.00570).

Knows cells and the papers' columns. Shares are in 0..1, where the paper has percents. How tables are written down
stands in `runner/`.
"""

from collections.abc import Sequence

from lightning_edit.jobs.leaderboard_cells import Cell
from lightning_edit.runner.results import ReportTable, Scalar
from lightning_edit.runner.tables import DIMENSIONS

COLUMNS = {**DIMENSIONS, "average": "Avg."}
TOKENS = {"token_locality/match_ratio": "Match Ratio", "token_locality/exact_match": "Exact Match"}
TASK, MEAN = "reasoning/", "reasoning/mean"
Row = list[Scalar | None]


def all_tables(cells: Sequence[Cell], labels: Sequence[str]) -> list[ReportTable]:
    """Every table for which there are numbers.

    Args:
        cells: Cells without error, the unedited model's among them.
        labels: Labels in their order, the unedited model's first.
    """
    made = [single_and_sequential(cells, labels), by_load(cells, labels), tokens(cells, labels), tasks(cells, labels)]
    return [table for table in made if table.rows]


def single_and_sequential(cells: Sequence[Cell], labels: Sequence[str]) -> ReportTable:
    """Single edits beside the longest sequence; Tables 3, 29 and 31.

    Args:
        cells: Cells without error.
        labels: Labels in their order.
    """
    low, high = _ends(cells)
    names = [f"{name} ({load})" for load in (low, high) for name in COLUMNS.values()]
    rows: list[Row] = []
    for label in labels if low != high else ():
        pair = [_at(cells, label, load) for load in (low, high)]
        if any(pair):
            rows.append([label, *[_value(cell, key) for cell in pair for key in COLUMNS]])
    text = f"Groups of {low}, and a sequence of {high}. Locality is held against the unedited model's own answers."
    return ReportTable("Single and sequential editing", ["method", *names], rows, text)


def by_load(cells: Sequence[Cell], labels: Sequence[str]) -> ReportTable:
    """A block for each load, the methods below each other; Table 43.

    Args:
        cells: Cells without error.
        labels: Labels in their order.
    """
    rows: list[Row] = []
    for load in _loads(cells):
        for label in labels:
            cell = _at(cells, label, load)
            if cell is not None:
                rows.append([load, label, *[_value(cell, key) for key in COLUMNS], _value(cell, "seconds_per_edit")])
    return ReportTable("By load", ["N", "method", *COLUMNS.values(), "s per edit"], rows)


def tokens(cells: Sequence[Cell], labels: Sequence[str]) -> ReportTable:
    """Token-level locality of single edits and of the longest sequence; Table 40.

    Args:
        cells: Cells without error.
        labels: Labels in their order.
    """
    known = [cell for cell in cells if any(key in cell.row for key in TOKENS)]
    low, high = _ends(known)
    ends = [low] if low == high else [low, high]
    rows: list[Row] = []
    for label in labels:
        pair = [_at(known, label, load) for load in ends]
        if any(pair):
            rows.append([label, *[_value(cell, key) for cell in pair for key in TOKENS]])
    names = [f"{name} ({load})" for load in ends for name in TOKENS.values()]
    text = "Continuations of unrelated prompts, token by token against those of the unedited model."
    return ReportTable("Token-level locality", ["method", *names], rows, text)


def tasks(cells: Sequence[Cell], labels: Sequence[str]) -> ReportTable:
    """Reasoning and general ability after so many edits; Tables 33 and 34.

    Args:
        cells: Cells without error.
        labels: Labels in their order.
    """
    keys = list(dict.fromkeys(key for cell in cells for key in cell.row if key.startswith(TASK) and key != MEAN))
    rows: list[Row] = []
    for label in labels:
        own = sorted((cell for cell in cells if cell.editor == label), key=lambda cell: cell.edits)
        for cell in own:
            if any(key in cell.row for key in keys):
                rows.append([label, cell.edits, *[cell.row.get(key) for key in [*keys, MEAN]]])
    names = [key.removeprefix(TASK).removeprefix("world_").replace("_", " ") for key in keys]
    text = "The same questions each time; none names a subject of an edit. Perplexity is no part of the average."
    return ReportTable("Reasoning and general ability", ["method", "edits", *names, "Avg."], rows, text)


def _loads(cells: Sequence[Cell]) -> list[int]:
    return sorted({cell.edits for cell in cells if cell.edits})


def _ends(cells: Sequence[Cell]) -> tuple[int, int]:
    """The smallest and the largest load."""
    loads = _loads(cells) or [0]
    return loads[0], loads[-1]


def _at(cells: Sequence[Cell], label: str, load: int) -> Cell | None:
    """A method's cell at a load; the unedited model's is the same at all of them."""
    found = (cell for cell in cells if cell.editor == label and cell.edits in (load, 0))
    return next(found, None)


def _value(cell: Cell | None, key: str) -> Scalar | None:
    return None if cell is None else cell.row.get(key)
