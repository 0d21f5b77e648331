"""Training runs of a recipe: each an ordinary LightningCLI fit, with a CSV file and a W&B offline run of its own.

Knows LightningCLI, the Trainer and its loggers. Refuses to know what is trained or edited: the numbers come from what
was logged and from the callbacks' own summaries.
"""

import gc
import json
import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, WandbLogger

import lightning_edit.callbacks  # noqa: F401  # imported, these can be named without their module, as can the next two
from lightning_edit import EditableModule, EditStream  # noqa: F401
from lightning_edit.runner.merge import Config
from lightning_edit.runner.overrides import Overrides
from lightning_edit.runner.recipe import Recipe
from lightning_edit.runner.results import RunResult, build_row, read_curves, row_key, tail_mean
from lightning_edit.runner.seeds import repeated


class RecipeCLI(LightningCLI):
    """LightningCLI for one run: it parses the arguments it is given, and leaves the fit to its caller."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what `Trainer.fit` takes.

        Args:
            parser: The parser of the run.
        """
        parser.add_argument(
            "--ckpt_path",
            type=str | None,
            default=None,
            help="Resume from this checkpoint; 'last' finds the newest one of the run.",
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the given arguments; the base class warns that `sys.argv` holds others, which is meant here.

        Args:
            parser: The parser of the run.
            args: Command line arguments, as a list.
        """
        self.config = parser.parse_args(args)


def build(recipe: Recipe, config: Config, arguments: Sequence[str]) -> RecipeCLI:
    """Parse the configuration of one run and build its Trainer, model and data.

    `--help` and `--print_config` among the arguments print and leave through SystemExit, as every LightningCLI does.

    Args:
        recipe: The recipe.
        config: The run's configuration.
        arguments: Command line arguments that LightningCLI parses; they win over the configuration.
    """
    return RecipeCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        seed_everything_default=0,
        save_config_kwargs={"overwrite": True},
        parser_kwargs={"prog": f"lightning-edit run {recipe.recipe}", "description": recipe.header},
        run=False,
        args=["--config", json.dumps(config), *arguments],
    )


def run_configs(
    recipe: Recipe, labels: list[str] | None, overrides: Overrides, output: Path, seeds: Sequence[int] | None = None
) -> dict[str, Config]:
    """The configuration of every chosen run, with the folder and the W&B offline run that the recipe leaves open.

    Args:
        recipe: A recipe of training runs.
        labels: Labels of the chosen runs; all where None.
        overrides: What the command line changes in every run.
        output: The recipe's output folder.
        seeds: Seeds that each run is repeated with; the recipe's own alone where None.
    """
    configs = recipe.configs(labels)
    if seeds is not None:
        configs = repeated(configs, seeds)
    for label, config in configs.items():
        folder = str(output / label)
        trainer = {"default_root_dir": folder, **(config.get("trainer") or {})}
        if trainer.get("logger", True) in (None, True):
            trainer["logger"] = _wandb(recipe.recipe, label, folder)
        configs[label] = {**config, "trainer": trainer}
    return overrides.apply(configs)


def run_training(recipe: Recipe, label: str, config: Config, arguments: Sequence[str], output: Path) -> RunResult:
    """Fit one run and collect its row, its curves and its files.

    Args:
        recipe: A recipe of training runs.
        label: Label of the run.
        config: The run's configuration.
        arguments: Command line arguments that LightningCLI parses.
        output: The recipe's output folder.
    """
    cli = build(recipe, config, arguments)
    trainer, folder = cli.trainer, output / label
    resume = cli.config.get("ckpt_path")
    parts = _earlier_parts(folder, keep=resume is not None, first=trainer.is_global_zero)
    trainer.loggers = [CSVLogger(str(output), name=label, version=""), *trainer.loggers]
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Experiment logs directory .* exists and is not empty")
            warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")  # lightning 2.6 on torch 2.13
            trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=resume)
    finally:
        offline_run = _finish(trainer)
    result = RunResult(label, {"seconds": time.perf_counter() - start})
    if trainer.is_global_zero:
        _collect(recipe, result, trainer, [*parts, folder / "metrics.csv"])
        configuration = folder / "config.yaml"  # absent in a fast development run
        result.files |= ({"configuration": configuration} if configuration.is_file() else {}) | offline_run
    del cli, trainer
    gc.collect()  # the next run starts with the memory this one had
    return result


def _collect(recipe: Recipe, result: RunResult, trainer: Trainer, parts: Sequence[Path]) -> None:
    """Read row and curves of a finished fit."""
    written = [part for part in parts if part.is_file()]
    result.curves = read_curves(written)
    result.row |= build_row(trainer.callback_metrics, trainer.callbacks)  # type: ignore[attr-defined]
    for metric, fraction in recipe.report.means.items():
        if metric in result.curves:
            result.row[row_key(metric)] = tail_mean(result.curves[metric], fraction)
    result.files |= {f"logged numbers ({part.name})": part for part in written}


def _earlier_parts(folder: Path, keep: bool, first: bool) -> list[Path]:
    """CSV files of the parts of a resumed run; Lightning's logger would delete the last one, so it is set aside.

    Args:
        folder: The run's folder.
        keep: Whether the run resumes; otherwise it starts afresh and older parts are dropped.
        first: Whether this process is the one that writes.
    """
    parts = sorted(folder.glob("metrics.part-*.csv"))
    if not first:
        return []
    if not keep:
        for part in parts:
            part.unlink()
        return []
    newest = folder / "metrics.csv"
    if newest.is_file():
        aside = folder / f"metrics.part-{len(parts):03d}.csv"
        newest.replace(aside)
        parts.append(aside)
    return parts


def _wandb(recipe: str, label: str, folder: str) -> Config:
    """An offline W&B run in the run's own folder; `wandb sync FOLDER` uploads it later."""
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_CONSOLE", "off")
    return {
        "class_path": "lightning.pytorch.loggers.WandbLogger",
        "init_args": {"project": "lightning-edit", "group": recipe, "name": label, "save_dir": folder, "offline": True},
    }


def _finish(trainer: Trainer) -> dict[str, Path]:
    """Close the W&B runs, so that the next run of the recipe gets its own; their folders where they are offline."""
    folders = {}
    for logger in trainer.loggers if trainer.is_global_zero else []:
        if isinstance(logger, WandbLogger):
            folders["W&B offline run" if logger._offline else "W&B run"] = Path(logger.experiment.dir).parent
            logger.experiment.finish()
    return folders
