"""`lightning-edit ls | run | cp`: the command line, thin over recipes.

Knows the three commands and their own options. Everything after a recipe's name belongs to the recipe: LightningCLI
reads it for training runs, jsonargparse for jobs. `sys.argv` is never changed: distributed launches run it
again.
"""

import argparse
import inspect
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import lightning_edit
from lightning_edit.errors import EditError
from lightning_edit.recipes import shipped_recipes
from lightning_edit.runner.merge import RecipeError
from lightning_edit.runner.recipe import Recipe, find_recipe, load_recipe, read_recipe

RUN_HELP = """usage: lightning-edit run NAME_OR_FILE [--output DIR] [--runs LABEL,LABEL] [--paper | --fast] [overrides]

Run a recipe: one that `lightning-edit ls` shows, or a YAML file of your own.

  --output DIR          folder for the summary, report, plots and logs (default: runs/NAME)
  --runs LABEL,LABEL    only these runs of a recipe that has several
  --seeds 0,1,2         each run from each of these seeds: means and standard deviations
  --paper               model, data and sizes of the published experiment, where the recipe has them
  --fast                small sizes, to see everything once, where the recipe has them
  --help                after the name: every setting of the recipe
  --print_config        the resolved configuration (of the first chosen run)

Overrides apply to every run. Settings of a callback are named by its class or its index:

  lightning-edit run quickstart --trainer.max_steps=20
  lightning-edit run quickstart --trainer.callbacks.ContinualEdit.every_n_steps=10
  lightning-edit run quickstart --trainer.callbacks+=LearningRateMonitor
  lightning-edit run quickstart --trainer.callbacks.help=ContinualEdit
  lightning-edit run edit_model --model gpt2 --requests edits.jsonl --editor alphaedit --output edited
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status.

    Args:
        arguments: Command line without the program's name; `sys.argv` where None.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if arguments[:1] == ["run"]:
            return run(arguments[1:])
        options = _parser().parse_args(arguments)
        if options.command == "ls":
            return ls_editors() if options.what == "editors" else ls()
        return cp(options.name, Path(options.file))
    except EditError as error:
        print(f"lightning-edit: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lightning-edit", description="Knowledge editing in a Lightning training loop, one recipe at a time."
    )
    parser.add_argument("--version", action="version", version=f"lightning-edit {lightning_edit.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{ls,run,cp}")
    listing = commands.add_parser("ls", help="list the recipes, or the editors")
    listing.add_argument("what", nargs="?", choices=["recipes", "editors"], default="recipes")
    commands.add_parser("run", help="run a recipe; `lightning-edit run` alone says how", add_help=False)
    copy = commands.add_parser("cp", help="copy a recipe's YAML file, to change it")
    copy.add_argument("name", help="a recipe that `lightning-edit ls` shows")
    copy.add_argument("file", help="where the copy goes: a file that does not exist yet, or a folder")
    return parser


def ls() -> int:
    """List the recipes with one line each."""
    return _print_list({name: read_recipe(file).description for name, file in shipped_recipes().items()})


def ls_editors() -> int:
    """List the editors with the first line of their documentation each."""
    from lightning_edit.editors.registry import EDITORS, editor_class  # imports torch

    return _print_list({name: (inspect.getdoc(editor_class(name)) or "").splitlines()[0] for name in EDITORS})


def _print_list(descriptions: Mapping[str, str]) -> int:
    width = max(map(len, descriptions), default=0)
    for name, description in descriptions.items():
        print(f"{name:<{width}}  {description}")
    return 0


def cp(name: str, target: Path) -> int:
    """Copy a recipe's file.

    Args:
        name: A recipe that `ls` shows.
        target: A file that does not exist yet, or a folder.
    """
    source = find_recipe(name)
    if target.is_dir():
        target = target / source.name
    if target.exists():
        raise RecipeError(f"'{target}' exists already; choose another name, or remove it first")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    print(f"copied to {target}; run it with: lightning-edit run {target}")
    return 0


def run(arguments: Sequence[str]) -> int:
    """Run a recipe.

    Args:
        arguments: Everything after `run`: the recipe first, then its options.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(RUN_HELP)
        return 0
    if arguments[0].startswith("-"):
        raise RecipeError(f"found '{arguments[0]}' where the recipe belongs; write: lightning-edit run NAME ...")
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--runs", type=lambda text: [label.strip() for label in text.split(",")])
    parser.add_argument("--seeds")
    parser.add_argument("--paper", action="store_true")
    parser.add_argument("--fast", action="store_true")
    options, rest = parser.parse_known_args(arguments[1:])
    recipe = load_recipe(arguments[0])
    if options.paper and options.fast:
        raise RecipeError("found --paper and --fast; expected one of them, or neither")
    if options.paper:
        recipe = recipe.as_published()
    elif options.fast:
        recipe = recipe.shortened()
    suffix = "_paper" if options.paper else "_fast" if options.fast else ""
    output = options.output or Path("runs") / f"{recipe.recipe}{suffix}"
    command = shlex.join(["lightning-edit", "run", *arguments])
    seeds = None
    if options.seeds is not None:
        from lightning_edit.runner.seeds import read_seeds

        seeds = read_seeds(options.seeds)
    return execute(recipe, options.runs, rest, output, command, seeds)


def execute(
    recipe: Recipe,
    labels: list[str] | None,
    arguments: Sequence[str],
    output: Path,
    command: str,
    seeds: list[int] | None = None,
) -> int:
    """Run a recipe that was read, and report it; 1 where a part of it failed.

    Args:
        recipe: The recipe.
        labels: Labels of the chosen runs; all where None.
        arguments: Settings of the recipe, from the command line.
        output: The output folder.
        command: The command line that was typed, for the report.
        seeds: Seeds that everything is repeated with; the recipe's own alone where None.
    """
    from lightning_edit.runner.execute import execute_recipe  # imports torch: `ls` and `cp` answer at once without it

    results = execute_recipe(recipe, labels, arguments, output, command, seeds)
    return 1 if any(result.errors for result in results) else 0
