"""Editors at a T5's `wi` in `Trainer.fit`: what they write is measured, can be frozen, and a run goes on."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_edit.callbacks import ContinualEdit, GeometryMonitor
from lightning_edit.callbacks.freeze_sites import FreezeSites
from lightning_edit.data.stream import EditStream
from lightning_edit.module import EditableModule
from tests.callbacks.training import SaveAt, fit, requests, same, texts
from tests.seq2seq import ending, tiny_t5

WI = "decoder.block.1.layer.2.DenseReluDense.wi.weight"
WO = "decoder.block.1.layer.2.DenseReluDense.wo.weight"
OPTIONS: dict[str, dict[str, Any]] = {
    "ft_m": {"layers": ["decoder.block.1"], "lr": 5e-3, "steps": 10},
    "grace": {"layer": "decoder.block.1", "preset": "t5-3b", "replacement": "all", "steps": 5, "radius": 0.01},
    "wise": {"layer": "decoder.block.1", "preset": "gpt2-xl", "lr": 0.5, "steps": 5, "contexts": ["Well. "]},
}


def module(backend: str) -> EditableModule:
    return EditableModule.from_model(tiny_t5(dropout_rate=0.0), ending(backend), lr=1e-3)


def stream(count: int) -> EditStream:
    return EditStream(requests=requests(count), train=texts(), val=texts(3), max_length=24, batch_size=4)


def editing(name: str) -> ContinualEdit:
    return ContinualEdit(
        editor=name, editor_options={**OPTIONS[name], "part": "up"}, every_n_steps=2, edits_per_commit=2
    )


@pytest.mark.parametrize("name", OPTIONS)
def test_a_run_goes_on_from_its_checkpoint(name: str, trained_backend: str, tmp_path: Path) -> None:
    whole, again = module(trained_backend), module(trained_backend)
    fit(whole, stream(6), [editing(name), SaveAt(tmp_path, 3)], max_steps=6)
    fit(again, stream(6), [editing(name)], max_steps=6, ckpt_path=tmp_path / "3.ckpt")
    assert len(again.editor.requests) == 6
    assert same(again.editor.state_dict(), whole.editor.state_dict())
    for key, value in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[key], value), key


@pytest.mark.parametrize("still", [True, False])
def test_what_is_written_stands_still_between_commits(still: bool, trained_backend: str) -> None:
    lit = module(trained_backend)
    wi, wo = (lit.model.get_parameter(name).detach().clone() for name in (WI, WO))
    fit(lit, stream(4), [editing("ft_m"), *([FreezeSites()] if still else [])], max_steps=5)
    commits = lit.editor.state_dict()["commits"]
    assert len(commits) == 2
    (key,) = commits[0]["after"]
    moments = [wi, *(commit[when][key] for commit in commits for when in ("before", "after"))]
    moments.append(lit.model.get_parameter(WI).detach())
    for before, after in zip(moments[::2], moments[1::2], strict=True):  # training alone lies between these
        assert torch.equal(before, after) == still
    assert torch.equal(lit.model.get_parameter(WO), wo) == still  # the block's site, as it ever was
    assert lit.model.get_parameter(WI).requires_grad


def test_geometry_is_measured_on_what_is_written(trained_backend: str, tmp_path: Path) -> None:
    watch = GeometryMonitor(
        parts=["output", "up"],
        at_counts=[2],
        samples=60,
        sketch=40,
        subspaces=[4],
        first_order=2,
        plots=False,
        budget_seconds=None,
    )
    fit(module(trained_backend), stream(2), [editing("ft_m"), watch], max_steps=2, default_root_dir=tmp_path)
    assert WI in watch.probe.edited
    last = watch.history[-1]
    assert last["decoder.block.1_wi/edited/R_mean_abs_median"] > 0
    assert last["decoder.block.1/edited/R_mean_abs_median"] > 0
    assert last["decoder.block.1/random/R_mean_abs_median"] > 0
