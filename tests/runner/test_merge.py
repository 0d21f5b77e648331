"""Overrides: what they change, what they leave, and what they refuse."""

import copy
from typing import Any

import pytest

from lightning_edit.runner.merge import MissingItemError, RecipeError, merge


@pytest.fixture
def config() -> dict[str, Any]:
    return {
        "seed_everything": 1,
        "trainer": {
            "max_steps": 10,
            "logger": "WandbLogger",
            "callbacks": [
                {"class_path": "pkg.Edit", "init_args": {"n": 1, "targets": {"lr": 0.5, "steps": 3}}},
                "pkg.Monitor",
                {"class_path": "pkg.Twin"},
                {"class_path": "other.Twin"},
            ],
        },
        "model": {"class_path": "pkg.Module", "init_args": {"lr": 1.0}},
    }


def edit_arguments(config: dict[str, Any]) -> dict[str, Any]:
    return config["trainer"]["callbacks"][0]["init_args"]


def test_dotted_and_nested_overrides_are_the_same(config: dict[str, Any]) -> None:
    dotted = merge(config, {"trainer.max_steps": 3, "trainer.callbacks.Edit.targets.lr": 2.0})
    nested = merge(config, {"trainer": {"max_steps": 3, "callbacks": {"Edit": {"targets": {"lr": 2.0}}}}})
    assert dotted == nested
    assert dotted["trainer"]["max_steps"] == 3
    assert edit_arguments(dotted) == {"n": 1, "targets": {"lr": 2.0, "steps": 3}}


def test_the_configuration_itself_is_left_alone(config: dict[str, Any]) -> None:
    before, override = copy.deepcopy(config), {"trainer.callbacks.Edit.targets": {"new": [1]}}
    merged = merge(config, override)
    edit_arguments(merged)["targets"]["new"].append(2)
    assert config == before
    assert override == {"trainer.callbacks.Edit.targets": {"new": [1]}}


@pytest.mark.parametrize(
    "path", ["trainer.callbacks.0.n", "trainer.callbacks.Edit.n", "trainer.callbacks.0.init_args.n"]
)
def test_an_item_is_named_by_index_or_class(config: dict[str, Any], path: str) -> None:
    assert edit_arguments(merge(config, {path: 7}))["n"] == 7


def test_an_item_written_as_a_class_path_takes_arguments(config: dict[str, Any]) -> None:
    merged = merge(config, {"trainer.callbacks.Monitor.budget": 5})
    assert merged["trainer"]["callbacks"][1] == {"class_path": "pkg.Monitor", "init_args": {"budget": 5}}


def test_items_are_removed_and_appended(config: dict[str, Any]) -> None:
    merged = merge(config, {"trainer.callbacks": {"Edit": None, "2": None, "+": "pkg.New"}})
    assert merged["trainer"]["callbacks"] == ["pkg.Monitor", {"class_path": "other.Twin"}, "pkg.New"]


def test_a_single_object_answers_to_its_arguments_and_its_class(config: dict[str, Any]) -> None:
    assert merge(config, {"model.lr": 2.0})["model"]["init_args"] == {"lr": 2.0}
    assert merge(config, {"model.Module.lr": 2.0})["model"]["init_args"] == {"lr": 2.0}
    logger = merge(config, {"trainer.logger.project": "p"})["trainer"]["logger"]
    assert logger == {"class_path": "WandbLogger", "init_args": {"project": "p"}}


def test_another_class_comes_with_its_own_arguments_only(config: dict[str, Any]) -> None:
    merged = merge(config, {"model": {"class_path": "pkg.Other", "init_args": {"width": 3}}})
    assert merged["model"] == {"class_path": "pkg.Other", "init_args": {"width": 3}}
    same = merge(config, {"model": {"class_path": "pkg.Module", "init_args": {"width": 3}}})
    assert same["model"]["init_args"] == {"lr": 1.0, "width": 3}


def test_lists_and_numbers_are_replaced(config: dict[str, Any]) -> None:
    assert merge(config, {"trainer.callbacks": []})["trainer"]["callbacks"] == []
    assert merge(config, {"data.class_path": "pkg.Data"})["data"] == {"class_path": "pkg.Data"}


def test_unknown_and_ambiguous_items_are_named(config: dict[str, Any]) -> None:
    with pytest.raises(MissingItemError, match=r"no 'Guard' in a list of 4 \(Edit, Monitor, Twin, Twin\)"):
        merge(config, {"trainer.callbacks.Guard.n": 1})
    with pytest.raises(MissingItemError, match="no '9'"):
        merge(config, {"trainer.callbacks.9.n": 1})
    with pytest.raises(RecipeError, match=r"2 items of class 'Twin'; use an index of \[2, 3\]"):
        merge(config, {"trainer.callbacks.Twin.n": 1})
