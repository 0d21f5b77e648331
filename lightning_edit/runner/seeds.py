"""The same training run from several seeds, so that a report has a mean and a spread.

Knows what a seed changes in a configuration, and which rows belong together. Refuses to know how a run is made.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from inspect import signature
from statistics import fmean, stdev
from typing import Any

from lightning_edit.runner.cells import with_spread
from lightning_edit.runner.merge import Config, RecipeError
from lightning_edit.runner.results import ReportTable, RunResult, Scalar
from lightning_edit.runner.spread import ONE_SEED, summarise

MARK = "/seed-"
"""What stands between a run's label and the seed, in the label of one of its repetitions."""


def read_seeds(text: str) -> list[int]:
    """Seeds as they are typed.

    Args:
        text: Numbers behind commas, perhaps in brackets.

    Example:
        >>> read_seeds("0,1,2"), read_seeds("[3]")
        ([0, 1, 2], [3])
    """
    try:
        found: list[int] = json.loads(f"[{text.strip().removeprefix('[').removesuffix(']')}]")
    except json.JSONDecodeError:
        found = []
    if not found or not all(type(seed) is int and seed >= 0 for seed in found) or len(set(found)) < len(found):
        raise RecipeError(f"found --seeds {text}, expected different numbers from 0 on, such as 0,1,2")
    return found


def repeated(configs: dict[str, Config], seeds: Sequence[int]) -> dict[str, Config]:
    """Every run once for each seed.

    A seed replaces `seed_everything`, and the data's own `seed` where the class of the data takes one: other edits, in
    another order, beside other text.

    Args:
        configs: Configurations by label.
        seeds: The seeds.
    """
    return {f"{label}{MARK}{seed}": seeded(config, seed) for label, config in configs.items() for seed in seeds}


def seeded(config: Config, seed: int) -> Config:
    """A configuration with another seed.

    Args:
        config: The configuration, which stays as it is.
        seed: The seed.
    """
    changed = copy.deepcopy(config)
    changed["seed_everything"] = seed
    data = changed.get("data")
    if isinstance(data, dict) and _takes_seed(str(data.get("class_path", ""))):
        data["init_args"] = {**(data.get("init_args") or {}), "seed": seed}
    return changed


def rows_together(each: Mapping[int, Sequence[RunResult]]) -> list[RunResult]:
    """The rows of a job that was called once for each seed, each row one with means and spread over the seeds.

    Args:
        each: What the job came to, by seed; a row that some seed has not is summed up over those that have it.
    """
    labels = dict.fromkeys(result.label for results in each.values() for result in results)
    return [
        together(
            label,
            [
                replace(result, label=f"{label}{MARK}{seed}")
                for seed, results in each.items()
                for result in results
                if result.label == label
            ],
        )
        for label in labels
    ]


def together(label: str, results: Sequence[RunResult]) -> RunResult:
    """One result for all seeds of a run, see `summarise`; each seed's files, notes and errors say whose they are.

    Args:
        label: Label of the run.
        results: What came of each seed.
    """
    merged = summarise(label, results)
    seeds = [result.label.rpartition(MARK)[2] for result in results]
    merged.files = {
        f"{name}, seed {seed}": path
        for seed, result in zip(seeds, results, strict=True)
        for name, path in result.files.items()
    }
    merged.notes = [
        f"seed {seed}: {note}"
        for seed, result in zip(seeds, results, strict=True)
        for note in result.notes
        if note != ONE_SEED or len(seeds) == 1
    ]
    merged.errors = [
        f"seed {seed}: {error}" for seed, result in zip(seeds, results, strict=True) for error in result.errors
    ]
    merged.tables = _tables([result.tables for result in results], seeds)
    return merged


def _tables(each: Sequence[Sequence[ReportTable]], seeds: Sequence[str]) -> list[ReportTable]:
    """Tables of which all seeds have the same rows, with means and spread; the others once for each seed."""
    shapes = [[(table.title, table.columns, list(map(_names, table.rows))) for table in tables] for tables in each]
    if len(each) > 1 and all(shape == shapes[0] for shape in shapes):
        return [_mean_table(same) for same in zip(*each, strict=True)]
    marked = len(each) > 1
    return [
        replace(table, title=f"{table.title}, seed {seed}" if marked else table.title)
        for seed, tables in zip(seeds, each, strict=True)
        for table in tables
    ]


def _mean_table(tables: Sequence[ReportTable]) -> ReportTable:
    """One table of the same rows and columns."""
    rows = [
        [_mean_cell(cells) for cells in zip(*same, strict=True)]
        for same in zip(*(table.rows for table in tables), strict=True)
    ]
    return replace(tables[0], rows=rows)


def _mean_cell(cells: Sequence[Scalar | None]) -> Scalar | None:
    """Mean and standard deviation of numbers; what is the same everywhere, or missing somewhere, stays what it is."""
    numbers = [float(cell) for cell in cells if isinstance(cell, int | float)]
    if all(cell == cells[0] for cell in cells) or len(numbers) < len(cells):
        return cells[0] if all(cell == cells[0] for cell in cells) else None
    return with_spread({"x": fmean(numbers), "x_std": stdev(numbers)}, "x")


def _names(row: Sequence[Scalar | None]) -> list[Scalar | None]:
    """What a row is about: its texts, and numbers that count something; measured numbers are in its other cells."""
    return [cell if isinstance(cell, str | int) else None for cell in row]


def _takes_seed(path: str) -> bool:
    """Whether a class has a `seed` among its arguments."""
    module, _, name = path.rpartition(".")
    if not module:
        return False
    kind: Any = getattr(import_module(module), name)
    return "seed" in signature(kind).parameters
