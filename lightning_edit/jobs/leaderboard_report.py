"""From cells to what a recipe reports: a result for each editor, curves over the load, and the tables.

Knows rows of cells. What a report looks like stands in `runner/`.
"""

from collections.abc import Sequence

from lightning_edit.jobs.compare import UNEDITED
from lightning_edit.jobs.leaderboard_cells import Cell
from lightning_edit.jobs.leaderboard_entries import Entry
from lightning_edit.jobs.leaderboard_mend import TrainedMEND
from lightning_edit.jobs.leaderboard_tables import all_tables
from lightning_edit.runner.results import Curve, ReportTable, RunResult, Scalar

NUMBERS = ("layers", "layer", "steps", "lr", "rank", "stop_loss", "ratio", "radius", "prior_weight", "batch_size")
"""Settings that the table of settings shows, where an editor has them."""
ONCE = ("editor", "aligned", "edits")


def make_results(
    entries: Sequence[Entry], found: Sequence[Cell], missing: Sequence[Cell], trained: TrainedMEND | None
) -> list[RunResult]:
    """A result for the unedited model and for each editor; tables and remarks on the whole stand with the first.

    A row has the numbers of the largest finished load by their own names, and those of the smallest with `single_`
    before them, or `smallest_` where that is more than one edit.

    Args:
        entries: The editors.
        found: Cells that were played, finished or failed.
        missing: Cells that were not, or failed.
        trained: The network that MEND was given.
    """
    labels = [UNEDITED, *[entry.label for entry in entries]]
    good = [cell for cell in found if cell.error is None]
    results = [_result(label, [cell for cell in found if cell.editor == label]) for label in labels]
    first = results[0]
    first.tables = [*all_tables(good, labels), settings_table(entries, good)]
    failed = {(cell.editor, cell.edits) for cell in found if cell.error}
    waiting = [f"{cell.editor} ({cell.edits})" for cell in missing if (cell.editor, cell.edits) not in failed]
    if waiting:
        first.notes.append(f"{len(waiting)} cells were not played yet, run again to go on: {', '.join(waiting)}")
    if trained is not None:
        first.notes.append(
            f"MEND's network was trained in {trained.seconds:.0f} s, which no edit is charged with; "
            f"{trained.said:.2f} of other edits were said after one update"
        )
        for result, entry in zip(results[1:], entries, strict=True):
            if entry.untrained is not None:
                result.row["training_seconds"] = trained.seconds
    if good:
        seconds, places = sum(cell.seconds for cell in good), sorted({cell.where for cell in good})
        first.notes.append(f"{len(good)} cells, {seconds / 60:.0f} minutes, on {'; '.join(places)}")
    return results


def settings_table(entries: Sequence[Entry], cells: Sequence[Cell]) -> ReportTable:
    """What each editor was given, and what of it is less than published.

    Args:
        entries: The editors.
        cells: Cells without error.
    """
    rows: list[list[Scalar | None]] = []
    for entry in entries:
        own = {cell.edits: cell for cell in cells if cell.editor == entry.label}
        if own:
            batches = ", ".join(f"{cell.settings['batch']} of {edits}" for edits, cell in sorted(own.items()))
            numbers = _numbers(next(iter(own.values())))
            rows.append([entry.label, entry.declared.name, numbers, batches, entry.shortened or "nothing"])
    columns = ["method", "editor", "settings", "requests at once", "shortened against published"]
    return ReportTable("Settings", columns, rows)


def _result(label: str, cells: Sequence[Cell]) -> RunResult:
    """One editor's cells as a row and curves."""
    result = RunResult(label)
    good = sorted((cell for cell in cells if cell.error is None), key=lambda cell: cell.edits)
    if good:
        small, large = good[0], good[-1]
        result.row = dict(large.row)
        if small.edits < large.edits:
            prefix = "single_" if small.edits == 1 else "smallest_"
            result.row |= {f"{prefix}{key}": value for key, value in small.row.items() if key not in ONCE}
    for cell in good if label != UNEDITED else ():
        for key, value in {**cell.row, "count": cell.edits}.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and key != "edits":
                curve = result.curves.setdefault(key if "/" in key else f"edit/{key}", Curve())
                curve.steps.append(cell.edits)
                curve.values.append(float(value))
    result.notes = [f"{cell.edits} edits: {note}" for cell in good for note in _worth_saying(cell.notes)]
    result.errors = [f"{cell.edits} edits: {cell.error}" for cell in cells if cell.error]
    if result.errors:
        result.row["failed_cells"] = len(result.errors)
    return result


def _worth_saying(notes: Sequence[str], most: int = 3) -> list[str]:
    """The first remarks, and how many more there are: a refused edit makes one each.

    That an editor cannot undo is said by `undone` in its row, and the groups start from the clean model anyhow.
    """
    kept = [note for note in notes if not note.startswith("the editor cannot undo")]
    return [*kept[:most], *([f"and {len(kept) - most} more remarks"] if len(kept) > most else [])]


def _numbers(cell: Cell) -> str:
    """The settings of a cell on one line: what presets gave, and over it what the recipe said."""
    editor = cell.settings["editor"]
    options, given = dict(editor["options"]), editor.get("resolved") or {}
    if editor["name"] == "hybrid":
        both = {**(options.get("editor_options") or {}), **(options.get("memory") or {})}
        options, given = {"on": options.get("editor", "memit"), **both}, given.get("editor") or {}
    chosen = {**(given.get("preset") or {}), **(given.get("settings") or {}), "layers": given.get("layers")}
    shown = {key: chosen[key] for key in NUMBERS if chosen.get(key) not in (None, [], ())}
    plain = {key: value for key, value in {**shown, **options}.items() if not isinstance(value, dict)}
    return ", ".join(f"{key} {_short(value)}" for key, value in plain.items())


def _short(value: object) -> str:
    if isinstance(value, list):
        return "+".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
