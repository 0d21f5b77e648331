"""Recipe files: what they may say, and how mistakes in them are named."""

from pathlib import Path

import pytest

from lightning_edit.runner.merge import RecipeError
from lightning_edit.runner.recipe import load_recipe, parse_value

GOOD = """\
# One line about it.
#
# Run it:  lightning-edit run x.yaml
config:
  model: {class_path: pkg.Module, init_args: {lr: 1e-3}}
runs:
  one:
  two: {model.lr: 2}
report:
  columns: [run]
  plots: [{name: loss, metric: train/loss}]
"""


def write(folder: Path, text: str) -> str:
    file = folder / "x.yaml"
    file.write_text(text)
    return str(file)


def test_a_recipe_is_read(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD))
    assert recipe.recipe == "x"
    assert recipe.description == "One line about it."
    assert recipe.header.endswith("lightning-edit run x.yaml")
    configs = recipe.configs()
    assert list(configs) == ["one", "two"]
    assert configs["one"]["model"]["init_args"]["lr"] == 0.001
    assert configs["two"]["model"]["init_args"]["lr"] == 2
    assert recipe.report.plots[0].x == "step"


def test_runs_are_chosen_by_label_in_the_recipes_order(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD))
    assert list(recipe.configs(["two", "one"])) == ["one", "two"]
    with pytest.raises(RecipeError, match="no run 'three'; its runs are 'one', 'two'"):
        recipe.configs(["one", "three"])


def test_without_runs_there_is_one_named_like_the_recipe(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, "recipe: solo\nconfig: {model: pkg.Module}\n"))
    assert recipe.configs() == {"solo": {"model": "pkg.Module"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("config: {a: 1}\njobs: 3\n", "found 'jobs', expected some of recipe, config, runs, job"),
        ("recipe: x\n", "expected either 'config' .* or 'job'"),
        ("config: {a: 1}\njob: a.b\n", "found both or neither"),
        ("job: a.b\nruns: {x: {}}\n", "found 'runs' beside 'job'"),
        ("config: {a: 1}\nruns: {../x: {}}\n", "run label '../x'"),
        ("config: {a: 1}\nruns: {x: 3}\n", "runs.x: found 3, expected a mapping"),
        ("config: {a: 1}\nreport: {colums: []}\n", "report: found 'colums', expected some of title"),
        ("config: {a: 1}\nreport: {plots: [{name: x}]}\n", "report.plots: .*'metric'"),
        ("- 1\n", "expected a mapping"),
        ("a: [\n", "not valid YAML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(write(tmp_path, text))


def test_an_unknown_name_lists_the_recipes() -> None:
    with pytest.raises(RecipeError, match="neither a recipe nor a file named 'quickstrat'"):
        load_recipe("quickstrat")


def test_values_are_read_as_in_a_file() -> None:
    assert parse_value("1e-3") == 0.001
    assert parse_value("-2.5E+2") == -250.0
    assert parse_value("1e3x") == "1e3x"
    with pytest.raises(RecipeError, match="not valid YAML"):
        parse_value("[1")
