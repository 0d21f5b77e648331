"""What is logged is what `docs/log-keys.md` defines and `docs/watching.md` lays out, no more and no less.

One short run with every callback and every option writes all there is to write.
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger

from lightning_edit.callbacks import EditGuard, EditMonitor, EfficiencyMonitor, GeometryMonitor, ReasoningBenchmark
from tests.callbacks.test_reasoning_benchmark import data, module
from tests.callbacks.training import editing, fit, request, texts

DOCS = Path(__file__).resolve().parents[2] / "docs"
SECTIONS = {"Cost": "efficiency/", "Geometry": "geometry/<site>/"}  # what keys of a section have in front of them
ABSENT = {"efficiency/peak_cuda_bytes"}  # needs a GPU
ELSEWHERE = {"train_loss", "val_loss", "epoch", "step"}  # the module's own, and Lightning's
OPEN = (
    "<phase>",
    "<dimension>",
    "<kind>",
    "<probe>",
    "<task>",
    "<metric>",
    "<site>",
    "<comparison>",
    "<aggregation>",
    "<k>",
)


class Mood:
    """A measure of a guard's that nothing disturbs."""

    def __call__(self, *_: Any) -> float:
        return 0.0


class Yes:
    """A judge that finds everything right, so that there is something to retain."""

    name = "yes"

    def judge(self, cases: Any) -> list[bool]:
        return [True] * len(cases)


def rows(text: str, column: int) -> Iterator[tuple[str, str]]:
    """Section and a cell of every row of every table."""
    section = ""
    for line in text.splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        elif line.startswith("| ") and not line.startswith("| ---"):
            yield section, line.strip("|").split(" | ")[column]


def names(cell: str, prefix: str = "") -> Iterator[str]:
    """The keys in a cell; one that begins with `_` takes the place of the last word of the first."""
    first = ""
    for name in re.findall(r"`([^`]+)`", cell):
        first = first or name
        yield prefix + (first.rpartition("_")[0] + name if name.startswith("_") else name)


def documented() -> list[str]:
    """Every key that `docs/log-keys.md` defines."""
    text = (DOCS / "log-keys.md").read_text()
    return [name for section, cell in rows(text, 0) for name in names(cell, SECTIONS.get(section, ""))]


def panels() -> list[str]:
    """Every key that `docs/watching.md` puts into a panel."""
    text = (DOCS / "watching.md").read_text()
    return [name for section, cell in rows(text, 2) if section == "Panels" for name in names(cell)]


def pattern(name: str) -> re.Pattern[str]:
    text = re.escape(name)
    for part in OPEN:
        text = text.replace(re.escape(part), "[a-z0-9_]+")
    assert "<" not in text, name
    return re.compile(text)


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The keys that a run wrote, and found a number for."""
    tiny, logger = module(), CSVLogger(tmp_path_factory.mktemp("logs"))
    geometry = {"samples": 200, "sketch": 50, "subspaces": [4], "first_order": 2, "plots": False, "texts": texts(12)}
    callbacks = [
        editing(statistics_tokens=200, repair_every_n_steps=3),
        EditGuard({"mood": 1.0}, measures={"mood": Mood()}),
        EditMonitor(
            at_start=True,
            teacher_forced=True,
            by_confidence=True,
            by_kind=True,
            judge=Yes(),
            max_new_tokens=3,
            thought_tokens=3,
        ),
        EfficiencyMonitor(every_n_commits=1, tokens=2, runs=1),
        GeometryMonitor(at_counts=[2, 4, 6], budget_seconds=None, **geometry),
        ReasoningBenchmark(["world_two_hop", "world_perplexity"], limit=2, batch_size=4, max_new_tokens=2),
    ]
    edits = [request(number, old="Paris") for number in range(6)]
    fit(tiny, data(edits), callbacks, logger=logger, max_steps=7, val_check_interval=3, log_every_n_steps=1)
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        return {key for row in csv.DictReader(file) for key, value in row.items() if value} - ELSEWHERE


@pytest.mark.slow
def test_every_logged_key_is_documented(logged: set[str]) -> None:
    known = [pattern(name) for name in documented()]
    assert sorted(key for key in logged if not any(one.fullmatch(key) for one in known)) == []


@pytest.mark.slow
def test_every_documented_key_is_logged(logged: set[str]) -> None:
    wanted = {name for name in documented() if "/" in name} - ABSENT
    missing = {name for name in wanted if not any(pattern(name).fullmatch(key) for key in logged)}
    assert missing == {"reasoning/<task>/<metric>"}  # the world's tasks have one number each


@pytest.mark.slow
def test_the_panels_show_what_is_logged(logged: set[str]) -> None:
    shown = [name for name in panels() if "/" in name]
    keys = [pattern(name) for name in shown]
    in_panels = {key for key in logged if not key.startswith("geometry/")} - {"edit/count"}
    assert sorted(key for key in in_panels if not any(one.fullmatch(key) for one in keys)) == []
    unknown = {name for name in shown if not any(pattern(name).fullmatch(key) for key in logged)}
    assert unknown == {"reasoning/<task>/<metric>", *ABSENT}


def test_tables_of_panels_are_those_of_the_logger() -> None:
    written = Path(__file__).resolve().parents[2] / "callbacks" / "wandb_edit_logger.py"
    tables = set(re.findall(r'log_table\("(\w+)"', written.read_text()))
    assert {name for name in panels() if "/" not in name} == tables | {"train_loss", "val_loss"}
