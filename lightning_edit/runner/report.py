"""What a recipe leaves behind: `summary.json`, figures, `report.md` and `report.html`, and a table on the screen.

Knows rows and files. Refuses to know how they came to be.
"""

import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import quote

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from lightning_edit.runner.cells import is_number, show, with_spread
from lightning_edit.runner.page import to_html
from lightning_edit.runner.plots import draw
from lightning_edit.runner.recipe import Recipe
from lightning_edit.runner.results import RunResult, Scalar, finite_row
from lightning_edit.runner.tables import paper_tables

ORDER = (
    "run",
    "editor",
    "aligned",
    "drift",
    "edits",
    "reliability",
    "generalization",
    "locality",
    "portability",
    "seconds_per_edit",
    "train_loss",
)
"""The keys that come first in every row; the others follow as they were given."""


def write_report(recipe: Recipe, results: Sequence[RunResult], output: Path, command: str) -> list[Path]:
    """Write `summary.json`, the figures, `report.html` and `report.md`; the paths come back in this order.

    Args:
        recipe: The recipe that was run.
        results: What its runs came to, so far.
        output: The recipe's output folder.
        command: The command line that was typed.
    """
    output.mkdir(parents=True, exist_ok=True)
    rows = [ordered_row(result) for result in results]
    summary = output / "summary.json"
    _write(summary, json.dumps({"recipe": recipe.recipe, "rows": rows}, indent=2, ensure_ascii=False) + "\n")
    pictures = [path for spec in recipe.report.plots if (path := draw(spec, results, output))]
    pictures += [path for result in results for path in result.files.values() if path.suffix == ".png"]
    report, page = output / "report.md", output / "report.html"
    text = _markdown(recipe, results, rows, pictures, output, command)
    _write(report, text)
    _write(page, to_html(text, _title(recipe), output))
    return [summary, *pictures, page, report]


def ordered_row(result: RunResult) -> dict[str, Scalar]:
    """The row of a run as `summary.json` has it: known keys first, only finite numbers.

    Args:
        result: What the run came to.
    """
    row, _ = finite_row({"run": result.label, **result.row})
    first = {key: row[key] for key in ORDER if key in row}
    return {**first, **row}


def print_table(recipe: Recipe, results: Sequence[RunResult], console: Console) -> None:
    """Print the table of the report.

    Args:
        recipe: The recipe that was run.
        results: What its runs came to.
        console: Where to print.
    """
    rows = [ordered_row(result) for result in results]
    table = Table(title=recipe.report.title or recipe.recipe, title_justify="left", box=SIMPLE_HEAD)
    columns = shown_columns(recipe, rows)
    for column in columns:
        table.add_column(column, justify="left" if column == "run" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(show, _cells(row, columns)))
    room = console.options.update(max_width=1000)
    console.width = max(console.width, Measurement.get(console, room, table).maximum)  # never cut a number
    console.print(table)


def shown_columns(recipe: Recipe, rows: Sequence[dict[str, Scalar]]) -> list[str]:
    """The columns of the table: those the recipe names, or all; only such as some row has.

    Args:
        recipe: The recipe that was run.
        rows: The rows of the summary.
    """
    present = list(dict.fromkeys(key for row in rows for key in row))
    wanted = recipe.report.columns or present
    return [key for key in wanted if key in present]


def _markdown(
    recipe: Recipe,
    results: Sequence[RunResult],
    rows: Sequence[dict[str, Scalar]],
    pictures: Sequence[Path],
    output: Path,
    command: str,
) -> str:
    """The text of `report.md`."""
    columns = shown_columns(recipe, rows)
    parts = [f"# {_title(recipe)}", recipe.report.text.strip()]
    parts += [_table(columns, [_cells(row, columns) for row in rows])]
    parts += [f"![{picture.stem}]({quote(_relative(picture, output))})" for picture in pictures]
    for table in paper_tables(results, recipe.report.tables):
        parts += [f"## {table.title}", table.text, _table(table.columns, table.rows)]
    parts += ["\n".join(f"- {note}" for note in _notes(results))]
    failures = [f"- {result.label}: {' '.join(error.split())}" for result in results for error in result.errors]
    parts += ["## What failed", "\n".join(failures)] if failures else []
    parts += ["## How it was run", f"```\n{command}\n```", _protocols(rows), environment()]
    parts += ["## Files", "\n".join(_files(results, output))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _cells(row: dict[str, Scalar], columns: Sequence[str]) -> list[Scalar | None]:
    """The cells of a row; a spread over seeds that has no column of its own stands behind its number."""
    return [row.get(key) if f"{key}_std" in columns else with_spread(row, key) for key in columns]


def _title(recipe: Recipe) -> str:
    return recipe.report.title or recipe.description or recipe.recipe


def _table(columns: Sequence[str], rows: Sequence[Sequence[Scalar | None]]) -> str:
    """A table in Markdown, numbers to the right."""
    numeric = [all(is_number(row[place]) for row in rows) for place in range(len(columns))]
    lines = ["| " + " | ".join(map(_cell, columns)) + " |"]
    lines += ["|" + "".join(" ---: |" if right else " --- |" for right in numeric)]
    lines += ["| " + " | ".join(_cell(show(value)) for value in row) + " |" for row in rows]
    return "\n".join(lines)


def _cell(text: str) -> str:
    """A text in a table of Markdown, on one line."""
    return " ".join(text.replace("|", "\\|").split())


def _notes(results: Sequence[RunResult]) -> list[str]:
    """What the runs want said, and which numbers were left out."""
    notes = [f"{result.label}: {note}" for result in results for note in result.notes]
    for result in results:
        _, bad = finite_row(result.row)
        if bad:
            notes.append(f"{result.label}: not finite, and so left out: {', '.join(bad)}")
    return notes


def _protocols(rows: Sequence[dict[str, Scalar]]) -> str:
    """How answers were decoded, read and judged, and for which runs where that differs."""
    runs: dict[str, list[str]] = {}
    for row in rows:
        if "protocol" in row:
            runs.setdefault(str(row["protocol"]), []).append(str(row["run"]))
    if len(runs) == 1:
        return f"Answers: {next(iter(runs))}."
    return "\n".join(f"- Answers of {', '.join(names)}: {protocol}." for protocol, names in runs.items())


def _files(results: Sequence[RunResult], output: Path) -> list[str]:
    lines = ["- `summary.json`: every row, all keys"]
    for result in results:
        lines += [f"- {result.label}: {name} in `{_relative(path, output)}`" for name, path in result.files.items()]
    return lines


def environment() -> str:
    """One line on what the numbers were made with.

    Example:
        >>> environment().startswith("Python ")
        True
    """
    packages = ("lightning-edit", "torch", "lightning", "transformers")
    return ", ".join(
        [
            f"Python {platform.python_version()}",
            *[f"{package} {_version(package)}" for package in packages],
            f"{platform.system()} {platform.machine()}",
            f"{os.cpu_count()} CPU cores",
        ]
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed as a package)"


def _relative(path: Path, folder: Path) -> str:
    """The path as seen from the folder, where it lies inside it."""
    return path.resolve().relative_to(folder.resolve()).as_posix() if _inside(path, folder) else str(path)


def _inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _write(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new one, never half of it."""
    draft = path.with_name(path.name + ".part")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
