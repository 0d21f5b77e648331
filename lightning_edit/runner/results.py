"""What a run hands back: one row of plain numbers, curves, and the files it left.

A training run's row is made of its final logged metrics and of what its callbacks add: any callback with a method
`summary() -> dict[str, float | int | str | bool]` contributes, called once on rank zero after the fit. Curves come from
the CSV file of the run. This file knows no editor and no callback by name.
"""

import csv
import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

Scalar = float | int | str | bool


@runtime_checkable
class Summarises(Protocol):
    """A callback that contributes to the row of its run."""

    def summary(self) -> Mapping[str, Scalar]:
        """Numbers, texts and booleans by row key, such as `{"editor": "memit", "aligned": True, "edits": 400}`."""


@dataclass
class Curve:
    """One logged metric over a run.

    Args:
        steps: Optimizer steps at which it was logged, ascending.
        values: What was logged.
    """

    steps: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def at(self, step: float) -> float | None:
        """The last value logged at or before a step, or None.

        Args:
            step: Optimizer step.
        """
        index = bisect_right(self.steps, step)
        return self.values[index - 1] if index else None


@dataclass
class ReportTable:
    """A table of the report.

    Args:
        title: Its heading.
        columns: Names of the columns.
        rows: Rows of cells; None is an empty one.
        text: A sentence or two below the heading, in Markdown.
    """

    title: str
    columns: list[str]
    rows: list[list[Scalar | None]]
    text: str = ""


@dataclass
class RunResult:
    """What one run, or one row of a job, came to.

    Args:
        label: Name of the run.
        row: Numbers, texts and booleans by key; fractions are in 0..1.
        curves: Logged metrics by name.
        files: What the run left, by a short name; pictures (PNG) are shown in the report.
        notes: Sentences for the report.
        tables: Further tables for the report, such as cases to read.
        errors: What of the run failed while the rest went on; the report says so, and the command's exit status is 1.
    """

    label: str
    row: dict[str, Scalar] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    tables: list[ReportTable] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def row_key(metric: str) -> str:
    """The row key of a logged metric.

    `edit/` is dropped, `edit/count` counts `edits`, and `train/` and `val/` become part of the name.

    Args:
        metric: Name as it was logged.

    Example:
        >>> [row_key(name) for name in ("edit/count", "edit/locality", "train/loss", "reasoning/gsm8k")]
        ['edits', 'locality', 'train_loss', 'reasoning/gsm8k']
    """
    if metric == "edit/count":
        return "edits"
    return re.sub(r"^(train|val|test)/", r"\1_", metric.removeprefix("edit/"))


def build_row(metrics: Mapping[str, Any], callbacks: Iterable[object]) -> dict[str, Scalar]:
    """The row of a training run: final metrics first, then what the callbacks say, which wins.

    Lightning's `_step` and `_epoch` twins of a metric are left out.

    Args:
        metrics: The Trainer's `callback_metrics`.
        callbacks: The Trainer's callbacks.
    """
    twins = {f"{name}_{suffix}" for name in metrics for suffix in ("step", "epoch")}
    row = {row_key(name): plain(value) for name, value in metrics.items() if name not in twins}
    for callback in callbacks:
        if isinstance(callback, Summarises):
            row.update({key: plain(value) for key, value in callback.summary().items()})
    if "edits" in row and not isinstance(row["edits"], str):
        row["edits"] = int(row["edits"])
    return row


def plain(value: Any) -> Scalar:
    """A number, text or boolean as plain Python has it.

    Args:
        value: A Python scalar, or a tensor or array with one element.
    """
    if isinstance(value, str | bool | int | float):
        return value
    number = value.item()
    if not isinstance(number, bool | int | float):
        raise TypeError(f"found {value!r} in a row of results, expected a number, a text or a boolean")
    return number


def finite_row(row: Mapping[str, Scalar]) -> tuple[dict[str, Scalar], list[str]]:
    """The row without numbers that are not finite, which JSON cannot hold, and the keys that were left out.

    Args:
        row: One row of results.
    """
    bad = [key for key, value in row.items() if isinstance(value, float) and not math.isfinite(value)]
    return {key: value for key, value in row.items() if key not in bad}, bad


def read_curves(files: Iterable[Path]) -> dict[str, Curve]:
    """Curves from the CSV files of one run; the parts of a resumed run are given in order.

    Where two parts overlap, because the run resumed from before the end of the earlier part, the later part counts.

    Args:
        files: Files that Lightning's CSVLogger wrote.
    """
    curves: dict[str, Curve] = {}
    for file in files:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = [row for row in csv.DictReader(stream) if row.get("step")]
        first = min((float(row["step"]) for row in rows), default=math.inf)
        for curve in curves.values():
            keep = bisect_left(curve.steps, first)
            del curve.steps[keep:], curve.values[keep:]
        for row in sorted(rows, key=lambda row: float(row["step"])):
            for name, value in row.items():
                if name != "step" and value:
                    curve = curves.setdefault(name, Curve())
                    curve.steps.append(float(row["step"]))
                    curve.values.append(float(value))
    return curves


def tail_mean(curve: Curve, fraction: float) -> float:
    """Mean over the last part of a curve: noise of the last batch is no result.

    Args:
        curve: The curve; not empty.
        fraction: Part of its points, in (0, 1]; at least one point counts.

    Example:
        >>> tail_mean(Curve([0, 1, 2, 3], [9.0, 9.0, 1.0, 3.0]), 0.5)
        2.0
    """
    count = max(1, round(len(curve.values) * fraction))
    return math.fsum(curve.values[-count:]) / count
