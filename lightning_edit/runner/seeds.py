"""The same training run from several seeds, so that a report has a mean and a spread.

Knows what a seed changes in a configuration, and which rows belong together. Refuses to know how a run is made.
"""

import copy
import json
from collections.abc import Sequence
from importlib import import_module
from inspect import signature
from typing import Any

from lightning_edit.jobs.spread import summarise
from lightning_edit.runner.merge import Config, RecipeError
from lightning_edit.runner.results import RunResult

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


def together(label: str, results: Sequence[RunResult]) -> RunResult:
    """One result for all seeds of a run, see `summarise`; each seed's files and notes say whose they are.

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
        f"seed {seed}: {note}" for seed, result in zip(seeds, results, strict=True) for note in result.notes
    ]
    return merged


def _takes_seed(path: str) -> bool:
    """Whether a class has a `seed` among its arguments."""
    module, _, name = path.rpartition(".")
    if not module:
        return False
    kind: Any = getattr(import_module(module), name)
    return "seed" in signature(kind).parameters
