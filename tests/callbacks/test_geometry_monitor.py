"""GeometryMonitor: what it logs, draws and keeps, beside ContinualEdit and without disturbing it."""

import csv
import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from lightning_edit.callbacks import EditMonitor, GeometryMonitor
from lightning_edit.callbacks.geometry_report import AT_MOST, _some, checked, correlations
from lightning_edit.errors import EditError, GeometryError, StateError, StrategyError
from lightning_edit.model.language_model import LanguageModel
from tests.callbacks.training import SaveAt, editing, fit, requests, same, stream, texts, tiny_module, weights

MEDIAN = "total/R_mean_abs_median"


class ImageLogger(CSVLogger):
    """A logger that can show pictures, with the method that W&B's has."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.shown: dict[str, list[str]] = {}

    def log_image(self, key: str, images: list[str]) -> None:
        self.shown[key] = images


def monitor(**options: Any) -> GeometryMonitor:
    fields = {"at_counts": [2, 4], "samples": 200, "sketch": 50, "subspaces": [4], "first_order": 2, "plots": False}
    return GeometryMonitor(**{**fields, "budget_seconds": None, "texts": texts(12), **options})


def logged(logger: CSVLogger) -> list[dict[str, str]]:
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_everything_is_measured_logged_drawn_and_correlated(
    trained_backend: str, statistics: Path, tmp_path: Path
) -> None:
    watch, asked = monitor(plots=True, parts=["output", "input"]), EditMonitor(max_new_tokens=2, thought_tokens=2)
    logger = ImageLogger(tmp_path)
    callbacks = [watch, editing(statistics), asked]
    trainer = fit(tiny_module(trained_backend), stream(trained_backend, requests(4)), callbacks, logger=logger)
    assert [(row["count"], row["step"]) for row in watch.history] == [(0, 0), (2, 2), (4, 4), (4, 6)]
    for place in ("layer0", "layer1", "layer0_input", "layer1_input"):
        assert watch.history[0][f"{place}/{MEDIAN}"] == 0  # the unedited model against itself
        assert all(row[f"{place}/null/R_mean_abs_max"] == 0 for row in watch.history)
        assert all(row[f"{place}/condition"] > 1 for row in watch.history)
        assert watch.history[2][f"{place}/{MEDIAN}"] > 0
    for row in watch.history[1:3]:
        for label in ("total", "edited", "random", "commit", "commit_random"):
            assert row[f"layer1/{label}/norm_mean"] > 0
        assert row["layer0/commit/first_order_error"] < 1e-3
        assert "layer2_up_proj/commit/first_order_error" in row  # the last block, which nobody edits
        assert "layer1/cos_min_k4" in row
    assert "layer1/commit/norm_mean" not in watch.history[3]  # there was no commit
    assert {"layer1/law_ratio", "layer1/growth_exponent", "layer1/coherence"} <= watch.history[2].keys()

    rows = [row for row in logged(logger) if row[f"geometry/layer1/{MEDIAN}"]]
    assert [row["edit/count"] for row in rows] == ["0", "2", "4", "4"]
    assert [float(row["geometry/layer1/random/norm_mean"]) for row in rows] == [
        row["layer1/random/norm_mean"] for row in watch.history
    ]
    assert trainer.callback_metrics[f"geometry/layer1/{MEDIAN}"] == pytest.approx(watch.history[2][f"layer1/{MEDIAN}"])

    folder = Path(logger.log_dir) / "geometry"
    names = {"layer0", "layer1", "layer0_input", "layer1_input", "growth"}
    assert {path.name for path in folder.iterdir()} == {*(f"{name}.png" for name in names), "correlations.json"}
    assert logger.shown == {f"geometry/{name}": [str(folder / f"{name}.png")] for name in names}
    table = json.loads((folder / "correlations.json").read_text())
    assert len(table) == 12
    assert table["median_mean"]["locality"].keys() == {"rho", "p_value", "steps", "stars"}
    assert {"total_R_mean_abs_median", "edited_R_mean_abs_median", "random_R_mean_abs_median"} <= watch.summary().keys()


def test_training_and_edits_are_not_disturbed(trained_backend: str, statistics: Path, tmp_path: Path) -> None:
    found = []
    for callbacks in ([], [monitor(texts=None)]):
        module = tiny_module(trained_backend)
        fit(module, stream(trained_backend, requests(4)), [*callbacks, editing(statistics)], default_root_dir=tmp_path)
        found.append(weights(module))
    assert same(*found)


def test_a_resumed_run_measures_what_the_uninterrupted_one_does(
    trained_backend: str, statistics: Path, tmp_path: Path
) -> None:
    def run(watch: GeometryMonitor, *more: pl.Callback, **options: Any) -> None:
        data = stream(trained_backend, requests(6))
        callbacks = [editing(statistics), watch, *more]
        fit(tiny_module(trained_backend), data, callbacks, default_root_dir=tmp_path, **options)

    whole, resumed = monitor(at_counts=[2, 4, 6]), monitor(at_counts=[2, 4, 6])
    run(whole, SaveAt(tmp_path, 3))
    state = torch.load(tmp_path / "3.ckpt", weights_only=True)
    assert any("GeometryMonitor" in key for key in state["callbacks"])
    run(resumed, ckpt_path=tmp_path / "3.ckpt")
    assert [row["count"] for row in resumed.history] == [0, 2, 4, 6, 6]
    assert resumed.history == whole.history
    assert same(resumed.state_dict(), whole.state_dict())


def test_a_control_run_is_measured_in_the_same_way(trained_backend: str, tmp_path: Path) -> None:
    watch = monitor(layers=[1])
    data = stream(trained_backend, requests(4))
    fit(tiny_module(trained_backend), data, [editing(editor=None), watch], default_root_dir=tmp_path)
    assert [row["count"] for row in watch.history] == [0, 2, 4, 4]
    assert watch.history[-1][f"layer1/{MEDIAN}"] > 0  # training's own
    assert watch.history[1]["layer1/commit/norm_max"] == 0  # nothing is edited
    assert watch.history[-1]["layer1/total/norm_mean"] != watch.history[-1]["layer1/edited/norm_mean"]


def test_only_what_is_asked_for_is_measured(trained_backend: str, statistics: Path, tmp_path: Path) -> None:
    rare = monitor(at_counts=[3], at_end=False, first_order=0, texts=None)
    often = monitor(layers=[0, 1], at_counts=[], every_n_commits=2, at_end=False, first_order=0)
    last = monitor(layers=[0], at_counts=["all"], at_end=False, first_order=0)
    callbacks = [editing(statistics), rare, often, last]
    fit(tiny_module(trained_backend), stream(trained_backend, requests(6)), callbacks, default_root_dir=tmp_path)
    assert [row["count"] for row in rare.history] == [0, 4]  # as soon as three have been made
    assert [row["count"] for row in often.history] == [0, 4]
    assert [(row["count"], row["step"]) for row in last.history] == [(0, 0), (6, 6)]
    assert not any("first_order" in name for name in rare.history[1])
    assert rare.correlations == {}
    assert not (tmp_path / "geometry").exists()
    assert rare.probe is not None
    assert rare.probe.reference is not None
    assert all(batch["input_ids"].shape == (4, 24) for batch in rare.probe.reference.batches)  # the stream's own


def test_a_short_budget_is_said(trained_backend: str, statistics: Path, tmp_path: Path) -> None:
    watch = monitor(budget_seconds=1e-9, at_end=False, batch_size=1)
    data = stream(trained_backend, requests(2))
    with (
        pytest.warns(UserWarning, match="had no time for spectra"),
        pytest.warns(UserWarning, match="spectra, first order of commit"),
    ):
        fit(tiny_module(trained_backend), data, [editing(statistics), watch], default_root_dir=tmp_path, max_steps=2)
    assert watch.history[-1][f"layer1/{MEDIAN}"] > 0


def test_noise_of_the_hardware_is_said() -> None:
    with pytest.warns(UserWarning, match="same model read twice"):
        checked(_quiet_probe(), {"layer1/null/norm_max": 1e-6})


def test_wrong_use_is_named(trained_backend: str, tmp_path: Path) -> None:
    with pytest.raises(StrategyError, match="samples=0"):
        GeometryMonitor(samples=0)
    with pytest.raises(StrategyError, match="every_n_commits=0"):
        GeometryMonitor(every_n_commits=0)
    with pytest.raises(StateError, match="version None"):
        GeometryMonitor().load_state_dict({})
    data = stream(trained_backend, requests(2))
    for callbacks, message in [
        ([monitor()], "found no ContinualEdit"),
        ([editing(editor=None), monitor(texts="nowhere.txt")], r"nowhere\.txt"),
    ]:
        with pytest.raises(EditError, match=message):
            fit(tiny_module(trained_backend), data, callbacks, default_root_dir=tmp_path)


def test_batches_that_are_no_mappings_are_refused(tiny_lm: LanguageModel) -> None:
    from lightning_edit.callbacks.geometry_texts import _cut

    with pytest.raises(GeometryError, match=r"GeometryMonitor\(texts=\.\.\.\)"):
        list(_cut(tiny_lm, [torch.zeros(2, 3)], 8))
    (cut,) = _cut(tiny_lm, [{"input_ids": torch.arange(6).reshape(1, 6)}], 4)
    assert cut["input_ids"].tolist() == [[0, 1, 2, 3]]
    assert cut["attention_mask"].tolist() == [[1, 1, 1, 1]]


def test_steps_are_matched_by_their_count() -> None:
    probe = _quiet_probe()
    for count in (0, 1, 2, 3, 4):
        rates = {"layer1": torch.linspace(0, 1 + count, 9)}
        probe.history.append({"count": count, "rates": {"total": rates}, "sigma": {}})
    asked = [{"count": count, "step": 9, "locality": 1 - 0.1 * count, "odd": 1.0} for count in (1, 2, 4, 7)]
    found = correlations(probe, asked)
    assert found["median_mean"].keys() == {"locality"}
    assert found["median_mean"]["locality"].rho == pytest.approx(-1)
    assert found["median_mean"]["locality"].count == 3
    assert correlations(probe, []) == {}


def test_many_measurements_are_thinned_for_a_picture() -> None:
    assert _some([1, 2, 3]) == [1, 2, 3]
    assert _some(list(range(100)))[:1] == [0]
    assert _some(list(range(100)))[-1] == 99
    assert len(_some(list(range(100)))) == AT_MOST


def _quiet_probe() -> Any:
    from lightning_edit.geometry.probe import GeometryProbe

    return GeometryProbe([], [])
