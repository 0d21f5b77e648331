"""The command line of a training recipe: which part goes where."""

from typing import Any

import pytest

from lightning_edit.runner.merge import MissingItemError, RecipeError
from lightning_edit.runner.overrides import split_arguments


def config(*callbacks: str) -> dict[str, Any]:
    return {"trainer": {"callbacks": [{"class_path": f"pkg.{name}"} for name in callbacks]}}


def test_only_paths_through_lists_are_taken() -> None:
    arguments = [
        "--trainer.max_steps=3",
        "--trainer.callbacks.0.n=1e-3",
        "--model.lr",
        "1e-3",
        "--trainer.callbacks+=LearningRateMonitor",
        "--trainer.callbacks.logging_interval=step",
        "--trainer.callbacks.Edit.layers",
        "[1, 2]",
        "--trainer.callbacks.help=Edit",
        "--print_config",
    ]
    overrides = split_arguments(arguments)
    assert overrides.items == {"trainer.callbacks.0.n": 0.001, "trainer.callbacks.Edit.layers": [1, 2]}
    taken = {arguments[1], arguments[6], arguments[7]}
    assert overrides.native == [argument for argument in arguments if argument not in taken]


@pytest.mark.parametrize("arguments", [["--trainer.callbacks.Edit.n"], ["--trainer.callbacks.Edit.n", "--x=1"]])
def test_a_missing_value_is_named(arguments: list[str]) -> None:
    with pytest.raises(RecipeError, match=r"--trainer\.callbacks\.Edit\.n': found no value"):
        split_arguments(arguments)


def test_an_override_reaches_every_run_that_has_the_item() -> None:
    overrides = split_arguments(["--trainer.callbacks.Edit.n=2"])
    configs = overrides.apply({"edits": config("Watch", "Edit"), "control": config("Watch")})
    assert configs["edits"]["trainer"]["callbacks"][1]["init_args"] == {"n": 2}
    assert configs["control"] == config("Watch")


def test_an_override_that_reaches_no_run_is_an_error() -> None:
    overrides = split_arguments(["--trainer.callbacks.Edit.n=2"])
    with pytest.raises(MissingItemError, match="found no 'Edit'"):
        overrides.apply({"a": config("Watch"), "b": config()})
