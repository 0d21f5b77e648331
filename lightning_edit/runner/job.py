"""Job recipes: one typed function, its arguments from the command line, its defaults from the recipe.

Knows jsonargparse. Refuses to know what the function does: it returns a list of `RunResult`, one for each row.
"""

import inspect
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from lightning_edit.runner.merge import RecipeError
from lightning_edit.runner.recipe import Recipe
from lightning_edit.runner.results import RunResult
from lightning_edit.runner.seeds import rows_together

Job = Callable[..., list[RunResult]]


def run_job(
    recipe: Recipe, arguments: Sequence[str], output: Path, seeds: Sequence[int] | None = None
) -> list[RunResult]:
    """Call the job with the recipe's defaults, the command line over them, and the output folder if it wants one.

    `--help` and `--print_config` among the arguments print and leave through SystemExit.

    Args:
        recipe: A recipe with a job.
        arguments: Command line arguments after the recipe's name.
        output: The recipe's output folder.
        seeds: Seeds of the job. One that takes a single `seed` is called once for each, in a folder of its own, and
            each of its rows becomes one with means and spread.
    """
    function = find_job(recipe.job)
    taken = inspect.signature(function).parameters
    if seeds is not None and not {"seed", "seeds"} & taken.keys():
        raise RecipeError(f"job '{recipe.job}' takes no seed, leave --seeds out")
    if seeds is None or "seeds" in taken:
        given = [] if seeds is None else [f"--seeds={list(seeds)}"]
        return _call(recipe, function, [*arguments, *given], output)
    each = {seed: _call(recipe, function, [*arguments, f"--seed={seed}"], output / f"seed-{seed}") for seed in seeds}
    return rows_together(each)


def _call(recipe: Recipe, function: Job, arguments: Sequence[str], output: Path) -> list[RunResult]:
    """The job, once."""
    parser = job_parser(recipe, function)
    chosen = parser.instantiate_classes(parser.parse_args(list(arguments)))
    settings = {key: value for key, value in vars(chosen).items() if key != "config"}
    if "output" in inspect.signature(function).parameters:
        output.mkdir(parents=True, exist_ok=True)
        settings["output"] = output
    results = function(**settings)
    if not isinstance(results, list) or not all(isinstance(result, RunResult) for result in results):
        raise RecipeError(f"job '{recipe.job}' returned {type(results).__name__}, expected a list of RunResult")
    return results


def find_job(path: str) -> Job:
    """Import a job by its dotted path.

    Args:
        path: Module and function, such as `lightning_edit.jobs.locate.locate`.
    """
    module, _, name = path.rpartition(".")
    try:
        function: Any = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise RecipeError(f"found no job '{path}', expected the dotted path of a function: {error}") from error
    if not callable(function):
        raise RecipeError(f"found {function!r} at '{path}', expected a function")
    return function  # type: ignore[no-any-return]


def job_parser(recipe: Recipe, function: Job) -> ArgumentParser:
    """The parser of a job: every argument of the function but `output`, which every recipe has.

    Args:
        recipe: A recipe with a job.
        function: The job.
    """
    parser = ArgumentParser(prog=f"lightning-edit run {recipe.recipe}", description=recipe.header)
    parser.add_argument("--config", action="config", help="YAML file with values for the arguments below.")
    parser.add_function_arguments(function, skip={"output"}, sub_configs=True)
    known = set(inspect.signature(function).parameters) - {"output"}
    unknown = sorted(set(recipe.arguments) - known)
    if unknown:
        raise RecipeError(
            f"recipe '{recipe.recipe}', arguments: found {', '.join(unknown)}; the job takes {', '.join(sorted(known))}"
        )
    parser.set_defaults(recipe.arguments)
    return parser
