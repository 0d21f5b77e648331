"""Rows and curves: what a run hands back."""

from pathlib import Path

import pytest
import torch

from lightning_edit.runner.results import Curve, build_row, finite_row, plain, read_curves, tail_mean


class Speaker:
    def summary(self) -> dict[str, object]:
        return {"editor": "memit", "aligned": True, "reliability": torch.tensor(0.5), "edits": 4.0}


class Silent:
    summary = None


def test_the_row_holds_final_metrics_and_the_callbacks_win() -> None:
    metrics = {
        "train/loss": torch.tensor(2.0),
        "train/loss_step": torch.tensor(9.0),
        "train/loss_epoch": torch.tensor(8.0),
        "edit/reliability": torch.tensor(0.25),
        "edit/count": torch.tensor(3.0),
        "geometry/0/mean": 1.0,
    }
    row = build_row(metrics, [Silent(), Speaker()])
    assert row == {
        "train_loss": 2.0,
        "reliability": 0.5,
        "edits": 4,
        "geometry/0/mean": 1.0,
        "editor": "memit",
        "aligned": True,
    }
    assert type(row["edits"]) is int
    assert all(isinstance(value, int | float | str | bool) for value in row.values())


def test_a_step_metric_without_its_twin_is_kept() -> None:
    assert build_row({"loss_step": 1.0}, []) == {"loss_step": 1.0}


def test_plain_refuses_what_is_no_single_value() -> None:
    with pytest.raises(RuntimeError):
        plain(torch.zeros(2))
    with pytest.raises(TypeError, match="expected a number"):
        plain(torch.tensor(1j))


def test_numbers_that_are_not_finite_are_left_out_by_name() -> None:
    row, bad = finite_row({"run": "a", "x": float("nan"), "y": float("inf"), "z": 1.0})
    assert row == {"run": "a", "z": 1.0}
    assert bad == ["x", "y"]


def test_curves_are_read_from_csv(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    file.write_text("edit/count,loss,step\n,3.0,0\n5,,1\n,2.0,1\n,1.0,4\n")
    curves = read_curves([file])
    assert curves == {"loss": Curve([0, 1, 4], [3, 2, 1]), "edit/count": Curve([1], [5])}
    assert curves["loss"].at(3) == 2
    assert curves["edit/count"].at(0) is None


def test_a_resumed_run_continues_its_curves(tmp_path: Path) -> None:
    early, late = tmp_path / "early.csv", tmp_path / "late.csv"
    early.write_text("loss,step\n5,0\n4,1\n99,2\n")
    late.write_text("loss,step\n3,2\n2,3\n")
    assert read_curves([early, late])["loss"] == Curve([0, 1, 2, 3], [5, 4, 3, 2])


def test_tail_mean_takes_at_least_one_point() -> None:
    assert tail_mean(Curve([0, 1], [1.0, 3.0]), 0.01) == 3.0
    assert tail_mean(Curve([0, 1], [1.0, 3.0]), 1.0) == 2.0
