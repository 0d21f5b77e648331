"""EfficiencyMonitor: phases of commits, latency against the untouched model, sizes; and what survives a restart."""

import io
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from lightning_edit.callbacks import efficiency_monitor as module_under_test
from lightning_edit.callbacks.edit_callback import EditCallback
from lightning_edit.callbacks.efficiency_monitor import EfficiencyMonitor
from lightning_edit.editors.report import EditReport
from lightning_edit.errors import StateError, StrategyError
from lightning_edit.evaluation.cost import state_bytes
from tests.callbacks.training import SaveAt, editing, fit, requests, stream, tiny_module

QUICK = {"tokens": 3, "runs": 2}


class Reports(EditCallback):
    def __init__(self) -> None:
        self.seen: list[EditReport] = []

    def on_after_edit(self, trainer: pl.Trainer, pl_module: Any, edits: Any, report: EditReport) -> None:
        self.seen.append(report)


def test_phases_add_up_and_everything_is_logged(trained_backend: str, statistics: Path, tmp_path: Path) -> None:
    watch, reports, callback = EfficiencyMonitor(every_n_commits=2, **QUICK), Reports(), editing(statistics)
    logger = CSVLogger(tmp_path)
    data = stream(trained_backend, requests(4))
    fit(tiny_module(trained_backend), data, [callback, watch, reports], logger=logger, max_steps=5)
    row = watch.summary()
    total = sum(report.seconds["total"] for report in reports.seen)
    phases = [value for name, value in row.items() if name.endswith("_seconds_per_edit")]
    assert sum(phases) == pytest.approx(total / 4, rel=1e-6)
    assert {"targets", "keys", "solve", "write", "other"} <= {name.removesuffix("_seconds_per_edit") for name in row}
    assert [entry["count"] for entry in watch.history] == [4, 4]  # after the second commit, and at the end
    assert 0 < row["latency_low"] <= row["latency_seconds"] <= row["latency_high"]
    assert row["latency_ratio"] == pytest.approx(row["latency_seconds"] / watch.untouched.median)
    assert row["state_bytes"] == state_bytes(callback.editor.state_dict())
    assert row["peak_rss_bytes"] > 1e7
    assert "peak_cuda_bytes" not in row
    lines = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()
    rows = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
    spent = [float(entry["efficiency/targets_seconds"]) for entry in rows if entry["efficiency/targets_seconds"]]
    assert spent == pytest.approx([report.seconds["targets"] / 2 for report in reports.seen])
    assert len([entry for entry in rows if entry["efficiency/latency_ratio"]]) == 2


def test_the_untouched_model_is_timed_before_the_first_edit(
    trained_backend: str, statistics: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, callback, order = tiny_module(trained_backend), editing(statistics), []
    original = module_under_test.measure_latency

    def timed(lm: Any, texts: list[str], *rest: int) -> Any:
        order.append((callback.count, tuple(texts)))
        return original(lm, texts, *rest)

    monkeypatch.setattr(module_under_test, "measure_latency", timed)
    fit(module, stream(trained_backend, requests(4)), [callback, EfficiencyMonitor(prompts=1, **QUICK)], max_steps=4)
    assert order == [(0, ("Anna 0 lives in",)), (4, ("Anna 0 lives in",))]


def test_the_peak_of_an_earlier_run_does_not_count(trained_backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh: list[str] = []
    monkeypatch.setattr(module_under_test, "reset_peak_cuda", lambda device: fresh.append(device.type))
    watch = [editing(editor=None), EfficiencyMonitor(runs=0)]
    fit(tiny_module(trained_backend), stream(trained_backend, requests(2)), watch, max_steps=2)
    assert fresh == ["cpu"]


def test_a_control_run_has_sizes_and_no_phases(trained_backend: str) -> None:
    watch = EfficiencyMonitor(runs=0)
    fit(tiny_module(trained_backend), stream(trained_backend, requests(2)), [editing(editor=None), watch], max_steps=2)
    assert watch.summary().keys() == {"peak_rss_bytes"}


def test_it_goes_on_after_a_restart(
    trained_backend: str, statistics: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    edits = requests(4)
    first = EfficiencyMonitor(**QUICK)
    save = SaveAt(tmp_path, 3)
    data = stream(trained_backend, edits)
    fit(tiny_module(trained_backend), data, [editing(statistics), first, save], max_steps=4)
    second = EfficiencyMonitor(**QUICK)
    fit(
        tiny_module(trained_backend),
        stream(trained_backend, edits),
        [editing(statistics), second],
        ckpt_path=tmp_path / "3.ckpt",
        max_steps=4,
    )
    assert second.untouched == first.untouched  # an edited model is no yardstick
    assert second.edits == 4
    file = io.BytesIO()
    torch.save(second.state_dict(), file)
    loaded = EfficiencyMonitor(**QUICK)
    loaded.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    assert loaded.state_dict() == second.state_dict()


@pytest.mark.filterwarnings("ignore:The untouched model was timed elsewhere")
def test_latencies_of_two_machines_give_no_ratio(trained_backend: str, statistics: Path) -> None:
    watch = EfficiencyMonitor(every_n_commits=1, **QUICK)

    class Move(EditCallback):
        def on_after_edit(self, *_: Any) -> None:
            state = watch.state_dict()
            state["untouched"]["where"] = "another machine"
            watch.load_state_dict(state)

    data = stream(trained_backend, requests(2))
    fit(tiny_module(trained_backend), data, [editing(statistics), watch, Move()], max_steps=3)
    assert "latency_ratio" in watch.history[0]
    assert "latency_ratio" not in watch.history[1]
    assert "latency_seconds" in watch.history[1]


def test_what_it_refuses(trained_backend: str) -> None:
    for bad in ({"every_n_commits": 0}, {"prompts": 0}, {"tokens": 0}, {"runs": -1}, {"warmup": -1}):
        with pytest.raises(StrategyError, match="expected at least"):
            EfficiencyMonitor(**bad)
    with pytest.raises(StateError, match="version 9"):
        EfficiencyMonitor().load_state_dict({"version": 9})
    with pytest.raises(StrategyError, match="found no ContinualEdit"):
        fit(tiny_module(trained_backend), stream(trained_backend), [EfficiencyMonitor()], max_steps=1)
