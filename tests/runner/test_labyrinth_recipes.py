"""The recipes of Labyrinth and of edits under training, as they ship, on a tiny model: every run, table and figure."""

import json
from pathlib import Path

import pytest

from lightning_edit.cli import main
from lightning_edit.editors import ClosedFormEditor
from lightning_edit.editors.registry import EDITORS, editor_class
from lightning_edit.editors.sensitivity import SensitivityAware
from lightning_edit.evaluation import Evaluator
from lightning_edit.jobs.stage import Stage, load_model
from lightning_edit.runner.recipe import load_recipe

SMALL = {
    "labyrinth_main": ["--count", "4", "--steps", "2", "--measurements", "2"],
    "labyrinth_ablation": ["--count", "4", "--steps", "2", "--measurements", "2"],
    "labyrinth_memorize_latest": ["--count", "4", "--steps", "2", "--measurements", "2", "--abilities", "0"],
    "labyrinth_latent_shift": ["--count", "4", "--steps", "2", "--measurements", "2", "--kind", "neighbour"],
    "labyrinth_conflicts": ["--facts", "3", "--rounds", "2"],
    "labyrinth_sensitivity": ["--count", "4", "--steps", "2", "--single", "2", "--nullspace", "[0.05,0.4]"],
    "labyrinth_interference": ["--counts", "[2,4]"],
    "sequential_vs_one_time": ["--count", "4", "--numbers", "[1,4]"],
}
FIGURES = {"labyrinth_sensitivity": {"grid"}, "sequential_vs_one_time": {"distances"}}
TRAINING = [
    "--trainer.max_steps=4",
    "--trainer.log_every_n_steps=1",
    "--trainer.accelerator=cpu",
    "--trainer.logger=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.callbacks.ContinualEdit.edits_per_commit=2",
    "--trainer.callbacks.ContinualEdit.max_edits=4",
    "--trainer.callbacks.ContinualEdit.repair_every_n_steps=4",
    "--trainer.callbacks.ContinualEdit.statistics_tokens=2000",
    "--trainer.callbacks.SurvivalProbe.every_n_steps=2",
    "--trainer.callbacks.SurvivalProbe.budget=2",
    "--data.edits=4",
    "--data.documents=40",
    "--data.max_length=64",
]


@pytest.mark.parametrize("name", SMALL)
def test_a_recipe_runs_as_it_ships(name: str, brief_folder: Path, request_file: Path, tmp_path: Path) -> None:
    where = ["--model", str(brief_folder), "--requests", str(request_file), "--device", "cpu"]
    budget = [] if name == "labyrinth_interference" else ["--budget", "4"]
    arguments = [*where, "--seeds", "[0,1]", *budget, *SMALL[name]]
    assert main(["run", name, "--output", str(tmp_path), *arguments]) == 0
    rows = json.loads((tmp_path / "summary.json").read_text())["rows"]
    recipe = load_recipe(name)
    labels = [row["run"] for row in rows]
    assert set(recipe.arguments.get("editors", {})) <= set(labels)
    assert all(row["seeds"] == 2 for row in rows)
    assert any(key.endswith("_std") for row in rows for key in row)
    drawn = {path.stem for path in tmp_path.glob("*.png")}
    wanted = {plot.name for plot in recipe.report.plots} | FIGURES.get(name, set())
    assert drawn >= wanted - {"abilities"}  # of the embedded world, whose questions are too long for this model
    report = (tmp_path / "report.md").read_text()
    assert all(f"| {label} |" in report for label in labels)


@pytest.mark.parametrize("part", ["arguments", "paper"])
def test_the_main_comparison_has_every_closed_form_editor(part: str) -> None:
    recipe = load_recipe("labyrinth_main")
    editors = getattr(recipe, part)["editors"]
    played = {editor_class(options["editor"]) for options in editors.values()}
    shipped = {editor_class(name) for name in EDITORS}
    closed = {kind for kind in shipped if issubclass(kind, ClosedFormEditor)}
    assert closed - played == {SensitivityAware}  # which is not of the paper


@pytest.mark.slow
def test_abilities_of_the_embedded_model_are_asked() -> None:
    stage = Stage(load_model("embedded", "float32", "cpu"), Evaluator(1))
    found = stage.abilities(2)
    names = {key.removeprefix("ability/") for key in found} - {"mean"}
    assert names >= {"recall", "reading", "two_hop", "multiple_choice", "arithmetic"}
    assert found["ability/mean"] == pytest.approx(sum(found[f"ability/{name}"] for name in names) / len(names))
    assert found["ability/recall"] > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
def test_edits_are_followed_through_training_in_every_run(brief_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    model = f"--model.model={brief_folder}"
    assert main(["run", "edits_survive_training", "--output", str(output), model, *TRAINING]) == 0
    rows = {row["run"]: row for row in json.loads((output / "summary.json").read_text())["rows"]}
    assert list(rows) == list(load_recipe("edits_survive_training").runs)
    for label, row in rows.items():
        assert row["train_loss"] > 0
        assert 0 <= row["reliability"] <= 1
        assert ("undone_reliability" in row) == (label != "control")
    for kind in ("frozen", "lora"):  # nothing moves the edited matrix but edits, and so nothing is left of them
        assert [rows[f"{kind}-{policy}"]["undone_change"] for policy in ("adopt", "restore", "ignore")] == [0.0] * 3
    assert rows["restore"]["undone_change"] < rows["adopt"]["undone_change"]  # it never took training's changes over
    assert {"reliability.png", "locality.png", "training_loss.png"} <= {path.name for path in output.glob("*.png")}
