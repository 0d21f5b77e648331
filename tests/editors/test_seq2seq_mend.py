"""MEND on T5-style models: trained on both stacks, its factors gradients, its updates as written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

from lightning_edit.editors import get_editor
from lightning_edit.editors.examples import example_losses, make_batches, make_examples
from lightning_edit.editors.mend.data import MENDLessons
from lightning_edit.editors.mend.factors import applied, read_factors
from lightning_edit.editors.mend.training import MENDTraining, size_of
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.weights import base_layer, read_weight, write_weight
from tests.editors.gradient import changed, snapshot
from tests.editors.seq2seq import BOTH, REQUESTS
from tests.seq2seq import ending, t5_lm, tiny_t5


@pytest.fixture
def folder(trained_backend: str, tmp_path: Path) -> Callable[[str], Path]:
    def save(version: str) -> Path:
        path = tmp_path / version.replace(" ", "-")
        tiny_t5(version, num_layers=3).save_pretrained(path)
        ending(trained_backend).save_pretrained(path)
        return path

    return save


def mend_data(tmp_path: Path) -> MENDLessons:
    file = tmp_path / "edits.jsonl"
    file.write_text("\n".join(json.dumps(one.to_dict()) for one in REQUESTS))
    return MENDLessons(file, count=2, validation=1, batch_size=2, rounds=40)


@pytest.mark.parametrize("version", BOTH)
def test_mend_is_trained_and_edits(version: str, folder: Callable[[str], Path], tmp_path: Path) -> None:
    path, data = folder(version), mend_data(tmp_path)
    pl.seed_everything(0)
    module = MENDTraining(str(path), rank=8, lr=1e-4, rate_lr=1e-2, locality_weight=0.01)
    up = "wi" if version == "t5" else "wi_0"
    assert set(module.network.paths) == {
        f"{stack}.block.{block}.layer.{ffn}.DenseReluDense.{name}"
        for stack, ffn in (("encoder", 1), ("decoder", 2))
        for block in (1, 2)
        for name in (up, "wo")
    }
    frozen = snapshot(module.lm)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = pl.Trainer(
        max_steps=40, num_sanity_val_steps=0, enable_model_summary=False, default_root_dir=tmp_path, **quiet
    )
    trainer.fit(module, data)
    assert changed(module.lm, frozen) == []
    assert {"mend/edit_loss", "mend/divergence", "mend/val_said"} <= set(trainer.callback_metrics)
    lm = LanguageModel(AutoModelForSeq2SeqLM.from_pretrained(path), ending_of(module))
    editor = get_editor("mend", checkpoint=str(tmp_path / "mend.pt"))
    assert [lm.site(layer).block for layer in editor.attach(lm)] == [
        f"{stack}.block.{block}" for stack in ("encoder", "decoder") for block in (1, 2)
    ]
    clean, one = snapshot(lm), REQUESTS[1]
    with torch.no_grad():
        (untold,) = example_losses(lm, make_batches(lm, make_examples(lm, [one]), 1)[0])
    report = editor.edit(lm, [one])
    assert report.losses["r1"] < float(untold)
    assert set(changed(lm, clean)) == {f"{name}.weight" for name in module.network.paths}
    editor.undo(lm, "r1")
    assert changed(lm, clean) == []


def ending_of(module: MENDTraining) -> Any:
    return module.lm.tokenizer


def test_factors_are_gradients_and_updates_act_as_written(trained_backend: str) -> None:
    lm = t5_lm(trained_backend, dtype=torch.float64)
    names = [f"{site.block}.layer.{1 if site.stack == 'encoder' else 2}.DenseReluDense" for site in lm.sites]
    paths = [f"{name}.{part}" for name in names for part in ("wi", "wo")]
    (batch,) = make_batches(lm, make_examples(lm, REQUESTS), 3)
    with lm.borrow():
        factors, losses = read_factors(lm, paths, batch)
    for row, one in enumerate(REQUESTS):
        (alone,) = make_batches(lm, make_examples(lm, [one]), 1)
        weights = [base_layer(lm.model.get_submodule(path)).weight for path in paths]
        (loss,) = example_losses(lm, alone)
        assert torch.allclose(loss, losses[row])
        for path, gradient in zip(paths, torch.autograd.grad(loss, weights), strict=True):
            x, delta = factors[path]
            assert torch.allclose(delta[row].T @ x[row], gradient, atol=1e-10)
    update = {path: (x[:1], -0.01 * delta[:1]) for path, (x, delta) in factors.items()}
    (first,) = make_batches(lm, make_examples(lm, REQUESTS[:1]), 1)
    with torch.no_grad():
        with applied(lm, update):
            hooked = example_losses(lm, first)
        for path, (x, delta) in update.items():
            module = lm.model.get_submodule(path)
            assert size_of(lm, path) == (x.shape[-1], delta.shape[-1])
            write_weight(module, read_weight(module) + delta[0].T @ x[0])
        assert torch.allclose(example_losses(lm, first), hooked)
    assert hooked < losses[0]
