"""ContinualEdit's repairs: when they come, and what checkpoints, averaged weights and a failure find."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint

from lightning_edit.callbacks import ContinualEdit
from lightning_edit.errors import StrategyError
from tests.callbacks.training import LAYERS, SaveAt, editing, fit, requests, same, stream, tiny_module, weights
from tests.callbacks.witness import Witness, deployed


def drifts(callback: ContinualEdit) -> list[tuple[str, float]]:
    """Have a callback's editor write down each change and the drift it found."""
    found: list[tuple[str, float]] = []
    editor: Any = callback.editor
    for name in ("edit", "repair"):
        method = getattr(editor, name)

        def call(*args: Any, _method: Any = method, _name: str = name, **options: Any) -> Any:
            report = _method(*args, **options)
            found.append((_name, report.drift_norm))
            return report

        setattr(editor, name, call)
    return found


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"repair_at": []}, ["edit"]),
        ({"repair_at": ["end"]}, ["edit", "repair"]),
        ({"repair_at": [], "repair_every_n_steps": 2}, ["edit", "repair", "repair"]),
    ],
)
def test_repairs_come_when_asked_for(
    trained_backend: str, statistics: Path, options: dict[str, Any], expected: list[str]
) -> None:
    module, callback = tiny_module(trained_backend), editing(statistics, **options)
    changes = drifts(callback)
    fit(module, stream(trained_backend, requests(2)), [callback], max_steps=7)
    assert [name for name, _ in changes] == expected
    assert all(drift > 0 for name, drift in changes if name == "repair")
    assert deployed(callback, module) == ("end" in options["repair_at"])


def test_targets_are_renewed_before_a_commit_of_the_same_step(trained_backend: str, statistics: Path) -> None:
    module = tiny_module(trained_backend)
    rhythm = {"every_n_steps": 2, "edits_per_commit": 1, "repair_every_n_steps": 2}
    callback = editing(statistics, repair_at=[], refresh=True, **rhythm)
    changes = drifts(callback)
    fit(module, stream(trained_backend, requests(2)), [callback], max_steps=7)
    assert [name for name, _ in changes] == ["edit", "repair", "edit", "repair"]


def test_repair_before_validation_and_checkpoints(trained_backend: str, statistics: Path, tmp_path: Path) -> None:
    class Look(pl.Callback):
        seen: list[bool] = []  # noqa: RUF012

        def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
            if not trainer.sanity_checking:
                self.seen.append(deployed(callback, pl_module))

    module, callback = tiny_module(trained_backend), editing(statistics)
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=5, save_top_k=-1, filename="{step}")
    fit(
        module,
        stream(trained_backend, requests(2)),
        [callback, Look(), saver],
        max_steps=6,
        val_check_interval=3,
        enable_checkpointing=True,
    )
    assert Look.seen == [True, True]
    saved = torch.load(tmp_path / "step=5.ckpt", weights_only=True)
    for layer, site in saved["callbacks"]["ContinualEdit"]["editor"]["sites"].items():
        weight = saved["state_dict"][f"model.model.layers.{layer}.mlp.down_proj.weight"]
        assert torch.equal(site["deployed"], weight)


def test_a_checkpoint_of_the_same_step_holds_the_edit(trained_backend: str, statistics: Path, tmp_path: Path) -> None:
    callback = editing(statistics, repair_at=[])
    witness, saver = Witness(), ModelCheckpoint(tmp_path, every_n_train_steps=2, filename="{step}")
    callbacks = [saver, callback, witness]  # Lightning moves checkpoints behind everything else
    fit(
        tiny_module(trained_backend),
        stream(trained_backend, requests(2)),
        callbacks,
        max_steps=2,
        enable_checkpointing=True,
    )
    saved = torch.load(tmp_path / "step=2.ckpt", weights_only=True)
    assert same(dict(saved["state_dict"]), witness.after[0])
    assert saved["callbacks"]["ContinualEdit"]["source"]["cursor"] == 2


def test_checkpoints_of_weights_only_are_warned_of(trained_backend: str, tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path, save_weights_only=True)
    with pytest.warns(UserWarning, match="save_weights_only=True"):
        fit(
            tiny_module(trained_backend),
            stream(trained_backend, requests(1)),
            [editing(editor=None), saver],
            enable_checkpointing=True,
        )


# -- weight averaging ----------------------------------------------------------------------------------------------


def test_edits_and_averaged_weights(trained_backend: str, statistics: Path, tmp_path: Path) -> None:
    """Nothing is touched while averaged weights are swapped in, and the last repair works on them."""

    class Swapped(pl.Callback):
        seen: list[bool] = []  # noqa: RUF012

        def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
            before = weights(pl_module)
            callback.repair(trainer)
            if callback.count:
                self.seen.append(same(before, weights(pl_module)) and not deployed(callback, pl_module))

    module, callback = tiny_module(trained_backend), editing(statistics)
    averaging = EMAWeightAveraging(decay=0.5)
    fit(
        module,
        stream(trained_backend, requests(4)),
        [averaging, callback, Swapped()],
        val_check_interval=3,
    )
    assert Swapped.seen
    assert all(Swapped.seen)
    assert averaging._average_model is not None
    averaged = dict(averaging._average_model.module.named_parameters())
    final = weights(module)
    edited = {f"model.model.layers.{layer}.mlp.down_proj.weight" for layer in LAYERS}
    assert {name for name in final if not torch.equal(final[name], averaged[name])} == edited
    assert deployed(callback, module)


def test_averaging_behind_the_edits_is_refused(trained_backend: str) -> None:
    with pytest.raises(StrategyError, match="EMAWeightAveraging behind ContinualEdit"):
        fit(
            tiny_module(trained_backend),
            stream(trained_backend, requests(1)),
            [editing(editor=None), EMAWeightAveraging()],
        )


# -- failure --------------------------------------------------------------------------------------------------------


def test_a_failure_in_training_lets_go_and_leaves_the_weights(
    trained_backend: str, statistics: Path, tmp_path: Path
) -> None:
    class Fail(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.global_step == 3:
                raise ValueError("enough")

        def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
            before = weights(pl_module)
            trainer.save_checkpoint(tmp_path / "failed.ckpt")
            assert same(before, weights(pl_module))

    module, callback = tiny_module(trained_backend), editing(statistics)
    with pytest.raises(ValueError, match="enough"):
        fit(module, stream(trained_backend, requests(2)), [callback, Fail(), SaveAt(tmp_path, 2)])
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    assert not deployed(callback, module)  # one step of drift, not repaired
    assert torch.load(tmp_path / "failed.ckpt", weights_only=True)["callbacks"]["ContinualEdit"]["count"] == 2
