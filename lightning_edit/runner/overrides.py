"""The command line of a training recipe, split into what this package merges and what LightningCLI parses.

jsonargparse cannot name an item of a list, so paths that go through one (`--trainer.callbacks.EditMonitor.budget=64`,
`--trainer.callbacks.0.budget=64`) are merged into the configuration here. Everything else stays as it was typed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_edit.runner.merge import Config, MissingItemError, RecipeError, merge
from lightning_edit.runner.recipe import parse_value

_OPTION = re.compile(r"--(?P<path>[A-Za-z_]\w*(?:\.\w+)+)(?:=(?P<value>.*))?", re.DOTALL)
_ITEM = re.compile(r"\d+|[A-Z]\w*")


@dataclass(frozen=True)
class Overrides:
    """Overrides of the command line, for every run of a recipe.

    Args:
        items: Dotted paths through lists, with their values.
        native: Arguments for LightningCLI, as they were typed.
    """

    items: dict[str, Any] = field(default_factory=dict)
    native: list[str] = field(default_factory=list)

    def apply(self, configs: dict[str, Config]) -> dict[str, Config]:
        """Merge the item overrides into the configuration of every run that has the item; one run at least must.

        Args:
            configs: Configuration by label of the run.
        """
        configs = dict(configs)
        for path, value in self.items.items():
            reached, missing = False, None
            for label, config in configs.items():
                try:
                    configs[label] = merge(config, {path: value})
                    reached = True
                except MissingItemError as error:
                    missing = missing or error
            if missing is not None and not reached:
                raise missing
        return configs


def split_arguments(arguments: Sequence[str]) -> Overrides:
    """Split the arguments after the recipe's name.

    Args:
        arguments: Command line arguments, in order.

    Example:
        >>> split_arguments(["--trainer.max_steps=3", "--trainer.callbacks.EditMonitor.budget", "8"])
        Overrides(items={'trainer.callbacks.EditMonitor.budget': 8}, native=['--trainer.max_steps=3'])
    """
    items: dict[str, Any] = {}
    native: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        option = _OPTION.fullmatch(argument)
        if option is None or not any(_ITEM.fullmatch(step) for step in option["path"].split(".")[1:]):
            native.append(argument)
            continue
        value = option["value"] if option["value"] is not None else next(remaining, None)
        if value is None or value.startswith("--"):
            raise RecipeError(f"option '{argument}': found no value; write {argument}=VALUE")
        items[option["path"]] = parse_value(value)
    return Overrides(items, native)
