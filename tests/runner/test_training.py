"""Training recipes from end to end, on a model that takes a second."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning  # noqa: F401  # its log handler keeps the stream it meets at import, which must outlive a test's capture
import pytest
import wandb
import yaml

from lightning_edit.cli import main
from lightning_edit.runner.results import read_curves

RECIPE = Path(__file__).with_name("tiny.yaml")
NO_WANDB = "--trainer.logger=false"


def run(output: Path, *arguments: str) -> dict[str, dict[str, Any]]:
    """Run the recipe; its rows by label."""
    assert main(["run", str(RECIPE), "--output", str(output), *arguments]) == 0
    return read(output)


def read(output: Path) -> dict[str, dict[str, Any]]:
    summary = json.loads((output / "summary.json").read_text())
    assert summary["recipe"] == "tiny"
    return {row["run"]: row for row in summary["rows"]}


def config(output: Path, label: str) -> dict[str, Any]:
    return yaml.safe_load((output / label / "config.yaml").read_text())


def test_every_run_is_fitted_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = run(tmp_path, NO_WANDB, "--trainer.callbacks.Counter.every_n_steps=2", "--model.lr=0.5")
    assert list(rows) == ["aligned", "ignore", "control"]
    assert [rows["aligned"][key] for key in ("editor", "aligned", "drift", "edits")] == ["counter", True, "adopt", 3]
    assert rows["ignore"]["drift"] == "ignore"
    assert rows["aligned"]["reliability"] == pytest.approx(0.97)
    assert "editor" not in rows["control"]
    assert "reliability" not in rows["control"]
    assert rows["control"]["locality"] == pytest.approx(0.994)
    losses = {row["train_loss"] for row in rows.values()}
    assert len(losses) == 1  # one seed, one start, one schedule
    assert config(tmp_path, "aligned")["model"]["init_args"]["lr"] == 0.5
    assert {path.name for path in tmp_path.glob("*.png")} == {"reliability.png", "locality.png", "loss.png"}
    printed = capsys.readouterr().out
    for name in ("report.md", "summary.json", "reliability.png", "locality.png", "loss.png"):
        assert str(tmp_path / name) in printed


def test_the_row_holds_the_mean_of_the_last_part_of_the_loss(tmp_path: Path) -> None:
    row = run(tmp_path, NO_WANDB, "--runs=control")["control"]
    lines = (tmp_path / "control" / "metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("train/loss")
    losses = [float(cell) for line in lines[1:] if (cell := line.split(",")[column])]
    assert len(losses) == 6
    assert row["train_loss"] == pytest.approx(sum(losses[-3:]) / 3)


def test_runs_and_trainer_settings_come_from_the_command_line(tmp_path: Path) -> None:
    rows = run(tmp_path, NO_WANDB, "--runs", "ignore,aligned", "--trainer.max_steps", "2")
    assert list(rows) == ["aligned", "ignore"]
    assert rows["aligned"]["edits"] == 2
    rows = run(tmp_path, NO_WANDB, "--runs=aligned", "--trainer.callbacks.Counter=null", "--trainer.max_steps=1")
    assert "edits" not in rows["aligned"]


@pytest.mark.slow
def test_every_run_gets_its_own_offline_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "--runs=aligned,control", "--trainer.max_steps=2", "--trainer.logger.project=mine")
    assert wandb.run is None
    printed = capsys.readouterr().out
    for label in ("aligned", "control"):
        [folder] = (tmp_path / label / "wandb").glob("offline-run-*")
        assert list(folder.glob("*.wandb"))
        assert str(folder) in printed
        assert str(folder.relative_to(tmp_path)) in (tmp_path / "report.md").read_text()
        assert config(tmp_path, label)["trainer"]["logger"]["init_args"]["project"] == "mine"
    assert (tmp_path / "aligned" / "metrics.csv").is_file()


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
def test_a_resumed_run_keeps_its_curves(tmp_path: Path) -> None:
    saving = ("--runs=control", NO_WANDB, "--trainer.enable_checkpointing=true")
    run(tmp_path, *saving, "--trainer.max_steps=3")
    [checkpoint] = tmp_path.rglob("*.ckpt")
    run(tmp_path, *saving, "--trainer.max_steps=6", f"--ckpt_path={checkpoint}")
    [early] = tmp_path.rglob("metrics.part-*.csv")
    assert read_curves([early])["train/loss"].steps == [0, 1, 2]
    assert read_curves([early, early.with_name("metrics.csv")])["train/loss"].steps == [0, 1, 2, 3, 4, 5]
    report = (tmp_path / "report.md").read_text()
    assert "control/metrics.part-000.csv" in report
    run(tmp_path, *saving, "--trainer.max_steps=1")
    assert not early.exists()  # a fresh start leaves no earlier part behind


def test_an_interrupted_recipe_has_a_report_of_the_runs_before(tmp_path: Path) -> None:
    text = RECIPE.read_text().replace("drift: ignore", "every_n_steps: 0")
    broken = tmp_path / "tiny.yaml"
    broken.write_text(text)
    with pytest.raises(ZeroDivisionError):
        main(["run", str(broken), "--output", str(tmp_path), NO_WANDB])
    assert list(read(tmp_path)) == ["aligned"]


def test_print_config_prints_the_resolved_run_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--output", str(tmp_path / "o"), "--runs=ignore", "--trainer.max_steps=2", "--print_config"]
    with pytest.raises(SystemExit) as exit_:
        main(["run", str(RECIPE), NO_WANDB, *arguments])
    assert exit_.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["trainer"]["max_steps"] == 2
    assert printed["trainer"]["callbacks"][0]["init_args"]["drift"] == "ignore"
    assert printed["model"] == {"class_path": "tiny_training.TinyModule", "init_args": {"lr": 0.001}}
    assert not (tmp_path / "o").exists()


def test_a_wrong_setting_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["run", str(RECIPE), "--output", str(tmp_path), "--trainer.max_stepz=2"])
    assert exit_.value.code == 2
    assert "max_stepz" in capsys.readouterr().err
    assert main(["run", str(RECIPE), "--output", str(tmp_path), "--trainer.callbacks.Guard.n=2"]) == 1
    assert "found no 'Guard' in a list of 2 (Counter, Watcher)" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_run_every_run_and_one_of_them_reports(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lightning_edit", "run", str(RECIPE), "--output", str(tmp_path), NO_WANDB]
    command += ["--runs=aligned,control", "--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.max_steps=2"]
    paths = os.pathsep.join([str(RECIPE.parent), str(RECIPE.parents[2])])
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Starting with 2 processes" in done.stderr
    assert list(read(tmp_path)) == ["aligned", "control"]
    assert done.stdout.count("numbers") == 1
