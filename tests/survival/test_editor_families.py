"""Editors of every family inside of training: resumed runs, optimizers, checkpoints, and what the model then says."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from lightning_edit.callbacks import ContinualEdit
from lightning_edit.decoding import decode
from tests.callbacks.training import SaveAt, fit, requests, same, stream, tiny_module
from tests.editors.conformance import obedient, train_network
from tests.survival import editors_ddp_run

EDITORS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: pair for name, pair in editors_ddp_run.EDITORS.items() if name != "memit"},  # see test_resume.py
    "ft_m": ("ft_m", {"layers": [1], "steps": 3}),
    "lora per commit": ("lora", {"steps": 3, "policy": "per_commit"}),
    "adalora": ("adalora", {"steps": 4, "rank": 2, "init_rank": 3}),
}
ALSO_AT_A_COMMIT = ("ft_m", "lora per commit", "wise")


def train(kind: str, backend: str, statistics: Path, folder: Path, after: int | None = None) -> dict[str, Any]:
    """Train from the beginning or from a checkpoint; all that could differ."""
    module = tiny_module(backend)
    name, options = EDITORS[kind]
    if name == "mend":
        options = {"checkpoint": str(folder / "mend.pt")}
        if not (folder / "mend.pt").is_file():
            train_network(module.language_model, folder / "mend.pt")
    callback = ContinualEdit(name, every_n_steps=2, edits_per_commit=2, editor_options=options, statistics=statistics)
    saver = SaveAt(folder, *(step for step in (3, 4) if after is None))
    ckpt = None if after is None else folder / f"{after}.ckpt"
    names = list(module.state_dict())
    trainer: pl.Trainer = fit(module, stream(backend, requests(6)), [callback, saver], ckpt_path=ckpt, max_steps=5)
    assert callback.count == 4
    assert module.editor is callback.editor
    assert list(module.state_dict()) == names
    assert [request.id for request in module.editor.requests] == ["r0", "r1", "r2", "r3"]
    state = callback.state_dict()
    state.pop("seconds")  # measured by a clock
    prompts = [request.prompt for request in requests(4)]
    module.eval()
    with torch.no_grad():
        answer = module.model(input_ids=torch.tensor([[5, 6, 7, 8]])).logits
    return {
        "weights": dict(module.state_dict()),
        "optimizer": trainer.optimizers[0].state_dict()["state"],
        "state": state,
        "answer": answer,
        "written": [decode(module.language_model, prompts, 4), module.generate(prompts, 4)],
    }


@pytest.mark.parametrize("kind", EDITORS)
def test_resuming_is_never_having_stopped(kind: str, trained_backend: str, statistics: Path, tmp_path: Path) -> None:
    with obedient():
        whole = train(kind, trained_backend, statistics, tmp_path)
        assert len(whole["optimizer"]) == len(list(tiny_module(trained_backend).parameters()))
        for step in (3, 4) if kind in ALSO_AT_A_COMMIT else (3,):
            torch.load(tmp_path / f"{step}.ckpt", weights_only=True)
            resumed = train(kind, trained_backend, statistics, tmp_path, after=step)
            for part, expected in whole.items():
                assert same(resumed[part], expected), (step, part)
