"""A tiny T5 in `Trainer.fit`: trained, edited on the way, asked about, its geometry measured, and resumed."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_edit.callbacks import ContinualEdit, EditGuard, EditMonitor, GeometryMonitor, KeyCovarianceTracker
from lightning_edit.data.stream import EditStream
from lightning_edit.errors import EditError
from lightning_edit.model.layout import IGNORED
from lightning_edit.module import EditableModule
from tests.callbacks.training import SaveAt, fit, requests, texts
from tests.seq2seq import ending, tiny_t5

FT = {"lr": 5e-3, "steps": 30, "layers": ["decoder.block.0", "decoder.block.1"]}


def module(backend: str, **options: Any) -> EditableModule:
    return EditableModule.from_model(tiny_t5(**options), ending(backend), lr=1e-3)


def stream(edits: Any, **options: Any) -> EditStream:
    fields = {"train": texts(), "val": texts(3), "max_length": 24, "batch_size": 4, **options}
    return EditStream(requests=edits, **fields)


def editing(editor: str = "ft_m", **options: Any) -> ContinualEdit:
    fields = {"editor_options": FT, "every_n_steps": 2, "edits_per_commit": 2, **options}
    return ContinualEdit(editor=editor, **fields)


def test_text_becomes_rows_of_both_stacks(trained_backend: str) -> None:
    lit, data = module(trained_backend), stream(requests(2))
    fit(lit, data, [], max_steps=1)
    batch = next(iter(data.train_dataloader()))
    assert batch["input_ids"].shape == batch["labels"].shape == (4, 12)
    assert (batch["labels"] != batch["input_ids"]).any()
    whole = torch.cat([batch["input_ids"], batch["labels"]], dim=1)[0]
    assert " was born in " in lit.tokenizer.decode(whole[whole != IGNORED])


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_edits_are_made_asked_about_and_measured_while_it_trains(trained_backend: str, tmp_path: Path) -> None:
    lit = module(trained_backend)
    before = {name: value.clone() for name, value in lit.model.state_dict().items()}
    monitor = EditMonitor(every_n_commits=1, paraphrases=1, locality=1)
    geometry = GeometryMonitor(
        layers=["encoder.block.1", "decoder.block.1"],
        parts=["output", "up"],
        at_counts=[2, 4],
        samples=60,
        sketch=40,
        subspaces=[4],
        first_order=2,
        plots=False,
        budget_seconds=None,
    )
    trainer = fit(lit, stream(requests(4)), [editing(), monitor, geometry], max_steps=4, default_root_dir=tmp_path)
    assert lit.editor.requests == requests(4)
    metrics = trainer.callback_metrics
    assert metrics["edit/count"] == 4
    assert metrics["edit/reliability"] >= 0.5  # the last batch at least is said
    assert len(monitor.history) >= 2
    assert metrics["train_loss"] > 0
    changed = {name for name, value in lit.model.state_dict().items() if not torch.equal(value, before[name])}
    assert "encoder.block.0.layer.1.DenseReluDense.wi.weight" in changed  # training went through both stacks
    last = geometry.history[-1]
    for place in ("encoder.block.1", "encoder.block.1_wi", "decoder.block.1", "decoder.block.1_wi"):
        assert last[f"{place}/null/R_mean_abs_max"] == 0
        assert last[f"{place}/effective_rank"] > 1
    assert last["decoder.block.1/edited/R_mean_abs_median"] > 0
    assert last["encoder.block.1/edited/R_mean_abs_median"] == 0  # the decoder alone was edited
    assert last["encoder.block.1/total/R_mean_abs_median"] > 0  # and both were trained


def test_a_guard_measures_what_follows_held_out_text(trained_backend: str) -> None:
    lit, guard = module(trained_backend), EditGuard({"loss": 1e-9, "R_median": 1e3}, action="refuse", texts=texts(6))
    fit(lit, stream(requests(2)), [editing(), guard], max_steps=2)
    assert lit.editor.requests == []  # every edit costs more than that


def test_a_run_goes_on_from_its_checkpoint(trained_backend: str, tmp_path: Path) -> None:
    whole = module(trained_backend, dropout_rate=0.0)  # Lightning saves no random numbers
    fit(whole, stream(requests(6)), [editing(), SaveAt(tmp_path, 3)], max_steps=6)
    again = module(trained_backend, dropout_rate=0.0)
    fit(again, stream(requests(6)), [editing()], max_steps=6, ckpt_path=tmp_path / "3.ckpt")
    for name, value in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name
    assert again.editor.requests == whole.editor.requests


@pytest.mark.parametrize("callbacks", [[lambda: editing("memit", editor_options=None)], [KeyCovarianceTracker]])
def test_locating_and_its_statistics_are_refused_before_a_step(trained_backend: str, callbacks: list[Any]) -> None:
    made = [make() for make in callbacks]
    made += [] if isinstance(made[0], ContinualEdit) else [editing()]
    with pytest.raises(EditError, match="is an encoder-decoder"):
        fit(module(trained_backend), stream(requests(2)), made, max_steps=2)
