"""The table of ratios: on the screen, as JSON and as markdown.

Knows rows. Refuses to know how they were measured.
"""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.pictures import draw_held
from benchmarks.timing import Row

HEADER = ("benchmark", "plain way", "compared", "result", "quartiles", "plain / ours", "rounds", "aim")
WIDTH = 120  # of the table where nobody knows how wide the screen is


def cells(row: Row) -> tuple[str, ...]:
    """A row as text.

    Args:
        row: The row.
    """
    spread = (row.low, row.high) if row.overhead else (row.high, row.low)
    return (
        row.benchmark,
        row.against,
        row.way,
        _reading(row, row.ratio),
        " .. ".join(_reading(row, value) for value in spread),
        f"{row.against_seconds:.3g} / {row.seconds:.3g} {row.unit}",
        str(row.rounds),
        "" if row.aim is None else f"{'under' if row.overhead else 'at least'} {_reading(row, row.aim)}",
    )


def show(rows: Sequence[Row], console: Console | None = None) -> None:
    """Print the table.

    Args:
        rows: The rows.
        console: Where to.
    """
    console = console or Console()
    if not console.is_terminal:
        console.width = WIDTH
    table = Table(*HEADER, box=SIMPLE_HEAD)
    for row in rows:
        table.add_row(*cells(row))
    console.print(table)


def write(rows: Sequence[Row], folder: Path, command: str) -> list[Path]:
    """Write `results.json`, `results.md` and the picture of what was held, if anything was; returns their paths.

    Args:
        rows: The rows.
        folder: Where to.
        command: The command line that measured them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    setting = {
        "command": command,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }
    data, text = folder / "results.json", folder / "results.md"
    data.write_text(json.dumps({**setting, "rows": [asdict(row) for row in rows]}, indent=2) + "\n")
    lines = [" | ".join(cells(row)) for row in rows]
    table = [" | ".join(HEADER), " | ".join("---" for _ in HEADER), *lines]
    about = f"`{command}`, torch {setting['torch']}, {setting['threads']} threads"
    text.write_text("\n".join([about, "", *(f"| {line} |" for line in table)]) + "\n")
    picture = draw_held(rows, folder)
    return [data, text] if picture is None else [data, text, picture]


def _reading(row: Row, ratio: float) -> str:
    """A ratio in words: what more work costs, or how much faster the same work is."""
    if row.overhead:
        return f"{100 * (ratio - 1):+.1f} %"
    return f"{1 / ratio:.3g} x" if ratio else "none seen"  # a peak that stayed below an earlier one
