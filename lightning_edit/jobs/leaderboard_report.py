"""From cells to what a recipe reports: a result for each editor, curves over the load, and the tables.

Knows rows of cells. What a report looks like stands in `runner/`.
"""

from collections.abc import Sequence

from lightning_edit.jobs.cell_results import Shape, cells_as_result, remarks, with_protocol
from lightning_edit.jobs.compare import UNEDITED
from lightning_edit.jobs.leaderboard_cells import Cell
from lightning_edit.jobs.leaderboard_entries import Entry
from lightning_edit.jobs.leaderboard_mend import TrainedMEND
from lightning_edit.jobs.leaderboard_tables import all_tables
from lightning_edit.runner.results import ReportTable, RunResult, Scalar
from lightning_edit.runner.spread import ONE_SEED

NUMBERS = ("layers", "layer", "steps", "lr", "rank", "stop_loss", "ratio", "radius", "prior_weight", "batch_size")
"""Settings that the table of settings shows, where an editor has them."""
SHAPE = Shape("edits", "count", ("editor", "aligned", "edits", "protocol"))


def make_results(
    entries: Sequence[Entry],
    found: Sequence[Cell],
    missing: Sequence[Cell],
    trained: TrainedMEND | None,
    protocol: str,
) -> list[RunResult]:
    """A result for the unedited model and for each editor; tables and remarks on the whole stand with the first.

    Args:
        entries: The editors.
        found: Cells that were played, finished or failed.
        missing: Cells that were not, or failed.
        trained: The network that MEND was given.
        protocol: How the answers of all these cells were decoded and judged.
    """
    labels = [UNEDITED, *[entry.label for entry in entries]]
    good = [cell for cell in found if cell.error is None]
    with_protocol(good, protocol)
    results = [cells_as_result(label, [cell for cell in found if cell.editor == label], SHAPE) for label in labels]
    first = results[0]
    first.tables = [*all_tables(good, labels), settings_table(entries, good)]
    first.notes += [*remarks(found, missing), ONE_SEED]
    if trained is not None:
        first.notes.append(
            f"MEND's network was trained in {trained.seconds:.0f} s, which no edit is charged with; "
            f"{trained.said:.2f} of other edits were said after one update"
        )
        for result, entry in zip(results[1:], entries, strict=True):
            if entry.untrained is not None:
                result.row["training_seconds"] = trained.seconds
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
        records = any(isinstance(one, dict) for one in value)  # such as demonstrations
        return str(len(value)) if records else "+".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
