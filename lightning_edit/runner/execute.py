"""The run loop of a recipe: its runs one after another, and the report after each of them.

Knows the order of things and the screen. Only rank zero writes and prints; the other processes of a distributed run
take part in every fit and then leave.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_only
from rich.console import Console

from lightning_edit.runner.job import run_job
from lightning_edit.runner.merge import RecipeError
from lightning_edit.runner.overrides import split_arguments
from lightning_edit.runner.recipe import Recipe
from lightning_edit.runner.report import print_table, write_report
from lightning_edit.runner.results import RunResult
from lightning_edit.runner.seeds import MARK, together
from lightning_edit.runner.training import run_configs, run_training


def execute_recipe(
    recipe: Recipe,
    labels: list[str] | None,
    arguments: Sequence[str],
    output: Path,
    command: str,
    seeds: Sequence[int] | None = None,
) -> list[RunResult]:
    """Run a recipe; the report is written after each run, so that an interrupted recipe still has one.

    Args:
        recipe: The recipe.
        labels: Labels of the chosen runs; all where None.
        arguments: Settings of the recipe, from the command line.
        output: The output folder.
        command: The command line that was typed, for the report.
        seeds: Seeds that each training run, or the job, is repeated with; the recipe's own alone where None.
    """
    results: list[RunResult] = []
    written: list[Path] = []
    for finished in _finished(recipe, labels, arguments, output, seeds):
        results += finished
        written = _report(recipe, results, output, command) or []
    _show(recipe, results, written)
    return results


def _finished(
    recipe: Recipe, labels: list[str] | None, arguments: Sequence[str], output: Path, seeds: Sequence[int] | None
) -> Iterator[list[RunResult]]:
    """The results of the recipe's runs, one run at a time; a job is one run with any number of rows.

    A run with several seeds is one row, when all of them are there.
    """
    if recipe.job:
        if labels is not None:
            raise RecipeError(f"recipe '{recipe.recipe}' is one job and has no runs to choose; leave --runs out")
        yield run_job(recipe, arguments, output, seeds)
        return
    overrides = split_arguments(arguments)
    configs = run_configs(recipe, labels, overrides, output, seeds)
    waiting: list[RunResult] = []  # of one run, from the seeds so far
    for number, (label, config) in enumerate(configs.items(), start=1):
        if len(configs) > 1 and not _only_prints(overrides.native):
            _say(f"\n[bold]{recipe.recipe}[/bold]: run {number} of {len(configs)}, [bold]{label}[/bold]")
        waiting.append(run_training(recipe, label, config, overrides.native, output))
        if seeds is None or len(waiting) == len(seeds):
            yield waiting if seeds is None else [together(label.rpartition(MARK)[0], waiting)]
            waiting = []


def _only_prints(arguments: Sequence[str]) -> bool:
    """Whether LightningCLI will print something and leave instead of running."""
    return any(text in ("-h", "--help") or re.match(r"--(print_config|[\w.]+\.help)\b", text) for text in arguments)


@rank_zero_only
def _report(recipe: Recipe, results: Sequence[RunResult], output: Path, command: str) -> list[Path]:
    return write_report(recipe, results, output, command)


@rank_zero_only
def _say(text: str) -> None:
    Console().print(text)


@rank_zero_only
def _show(recipe: Recipe, results: Sequence[RunResult], written: Sequence[Path]) -> None:
    """Print the table, and name the report, the plots, and the folders that the runs left."""
    console = Console()
    print_table(recipe, results, console)
    summary, *plots, page, report = written
    named = [("table", report), ("page", page), ("numbers", summary), *[("plot", plot) for plot in plots]]
    named += [
        (f"{name}, {result.label}", path) for result in results for name, path in result.files.items() if path.is_dir()
    ]
    width = max(len(name) for name, _ in named)
    for name, path in named:
        console.print(f"{name:<{width}}  {path}", highlight=False, soft_wrap=True, markup=False)
