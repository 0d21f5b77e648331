"""A run that stops at any step and goes on from its checkpoint is, bit for bit, the run that never stopped."""

import queue
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import EMAWeightAveraging, OnExceptionCheckpoint

from lightning_edit.callbacks import EditMonitor, KeyCovarianceTracker, WandbEditLogger
from lightning_edit.requests import EditRequest
from tests.callbacks.training import QUICK, SaveAt, editing, fit, request, requests, same, stream, tiny_module, weights

STEPS = 8
AT = (1, 4, 5, 7)  # between commits, at a commit, at the end of an epoch; validation follows steps 3 and 6


def callbacks_of(kind: str, statistics: Path) -> list[pl.Callback]:
    """Callbacks of one way to run."""
    watch = EditMonitor(max_new_tokens=3, budget=3, at_validation=True, decode="teacher_forced")
    if kind == "file":
        return [editing(statistics, repair_every_n_steps=1), watch, WandbEditLogger()]
    if kind == "tracker":
        return [KeyCovarianceTracker(every_n_batches=2, min_tokens=150), editing(refresh=True), watch]
    if kind == "pass":
        return [editing(statistics_tokens=300, every_n_steps=3, repair_at=[]), watch]
    if kind == "averaged":
        return [EMAWeightAveraging(decay=0.7), editing(statistics), watch]
    naive = {**QUICK, "aligned": False}
    return [watch, editing(statistics, editor_options=naive, drift="ignore", every_n_steps=None, every_n_epochs=1)]


def train(kind: str, backend: str, statistics: Path, folder: Path, after: int | None = None) -> dict[str, Any]:
    """Train to the end, from the beginning or from a checkpoint, and return all that could differ."""
    module, callbacks = tiny_module(backend), callbacks_of(kind, statistics)
    later = [step for step in AT if step > (after or 0)]  # in both runs, since a repair comes before a checkpoint
    saver = SaveAt(folder / f"from {after}", *later)
    edits = [*requests(5), request(1, id="other", target="Berlin"), *requests(4, start=5)]
    options = {"max_steps": STEPS, "val_check_interval": 3}
    if kind == "naive":
        options |= {"accumulate_grad_batches": 2, "max_steps": -1, "max_epochs": 2}
    data = stream(backend, edits, max_length=48)  # seven batches an epoch
    ckpt = None if after is None else folder / "from None" / f"{after}.ckpt"
    trainer = fit(module, data, [*callbacks, saver], ckpt_path=ckpt, **options)
    states = {type(callback).__name__: callback.state_dict() for callback in callbacks}
    edited = states["ContinualEdit"]
    edited.pop("seconds")  # measured by a clock
    assert edited["count"] > 0
    return {
        "weights": dict(module.state_dict()),
        "optimizer": trainer.optimizers[0].state_dict()["state"],
        "callbacks": states,
        "step": trainer.global_step,
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["file", "tracker", "pass", "averaged", "naive"])
def test_resuming_is_never_having_stopped(kind: str, trained_backend: str, statistics: Path, tmp_path: Path) -> None:
    whole = train(kind, trained_backend, statistics, tmp_path)
    for step in AT if kind == "file" else AT[1:3]:
        resumed = train(kind, trained_backend, statistics, tmp_path, after=step)
        for part, expected in whole.items():
            assert same(resumed[part], expected), (step, part)


@pytest.mark.parametrize("repair_at", [None, ["end"]], ids=["everywhere", "at the end"])
def test_a_run_that_resumes_after_its_last_step_is_that_run(
    repair_at: Any, trained_backend: str, statistics: Path, tmp_path: Path
) -> None:
    ends = []
    for ckpt in (None, tmp_path / "5.ckpt"):
        module, callback = tiny_module(trained_backend), editing(statistics, repair_at=repair_at)
        data = stream(trained_backend, requests(6))
        fit(module, data, [callback, SaveAt(tmp_path, 5)], ckpt_path=ckpt, max_steps=5)
        assert callback.count == 4
        assert module.editor is callback.editor
        assert [item.id for item in module.editor.requests] == ["r0", "r1", "r2", "r3"]
        summary = callback.summary()
        assert summary.pop("seconds_per_edit") > 0
        ends.append((weights(module), module.editor.state_dict(), summary))
        module.editor.undo(module, ["r1"])
        assert [item.id for item in module.editor.requests] == ["r0", "r2", "r3"]
    assert same(*ends)


@pytest.mark.filterwarnings("ignore:.*fit.*ckpt_path")  # what Lightning says of OnExceptionCheckpoint
def test_a_pulled_request_survives_a_failing_edit(trained_backend: str, statistics: Path, tmp_path: Path) -> None:
    live: queue.Queue[EditRequest] = queue.Queue()
    live.put(request(0))
    callback = editing(statistics, requests=live)

    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError("no room")

    callback.editor.edit = fail  # type: ignore[union-attr,method-assign]
    saver = OnExceptionCheckpoint(str(tmp_path), "failed")
    with pytest.raises(MemoryError, match="no room"):
        fit(tiny_module(trained_backend), stream(trained_backend), [callback, saver], enable_checkpointing=True)
    assert live.empty()
    module, again = tiny_module(trained_backend), editing(statistics, requests=live)
    fit(module, stream(trained_backend), [again], ckpt_path=tmp_path / "failed.ckpt", max_steps=4)
    assert [item.id for item in module.editor.requests] == ["r0"]
    assert again.count == 1


def test_a_fit_that_is_repeated_with_the_same_objects_goes_back(
    trained_backend: str, statistics: Path, tmp_path: Path
) -> None:
    module, data, callback = tiny_module(trained_backend), stream(trained_backend, requests(6)), editing(statistics)
    fit(module, data, [callback, SaveAt(tmp_path, 3)])
    first = dict(module.state_dict())
    expected = {name: value.clone() for name, value in first.items()}
    fit(module, data, [callback], ckpt_path=tmp_path / "3.ckpt")
    assert same(dict(module.state_dict()), expected)
    assert callback.count == 6
