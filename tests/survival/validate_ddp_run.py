"""Two gloo processes that train and edit, and then validate the checkpoint with fresh callbacks.

Run as a script, `validate_ddp_run.py FOLDER BACKEND_JSON`, and Lightning starts both. What each rank found is put in
`FOLDER/rank<N>.pt`.
"""

import os
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from lightning_edit.callbacks import ContinualEdit, EditMonitor
from lightning_edit.decoding import decode
from tests.callbacks.training import SILENT, SaveAt, fit, requests, tiny_module
from tests.survival.ddp_run import data, two
from tests.survival.editors_ddp_run import EDITORS

VALIDATED = ("memit", "grace")  # one lives on rank zero alone, the other on both


def run(kind: str, backend: str, folder: Path) -> dict[str, Any]:
    """What a fit ended with, and what a validation of its checkpoint finds."""

    def callbacks() -> list[pl.Callback]:
        name, options = EDITORS[kind]
        rhythm = {"every_n_steps": 2, "edits_per_commit": 2, "statistics": folder / "statistics.safetensors"}
        return [EditMonitor(max_new_tokens=3, thought_tokens=3), ContinualEdit(name, editor_options=options, **rhythm)]

    def written(module: Any) -> list[str]:
        return decode(module.language_model, [edit.prompt for edit in requests(4)], 4)

    edited, first = tiny_module(backend), callbacks()
    saver = SaveAt(folder / kind, 4)
    fit(edited, data(backend, 4), [*first, saver], max_steps=4, limit_val_batches=0, **two())
    module, fresh = tiny_module(backend), callbacks()
    trainer = pl.Trainer(callbacks=fresh, logger=False, enable_checkpointing=False, **{**SILENT, **two()})
    found = trainer.validate(module, data(backend, 4), ckpt_path=folder / kind / "4.ckpt", verbose=False)[0]
    return {
        "last": {f"edit/{name}": value for name, value in first[0].history[-1].items() if name != "step"},
        "found": {name: value for name, value in found.items() if name != "val_loss"},
        "expected": written(edited),
        "written": written(module),
        "count": fresh[1].count,
        "ids": [edit.id for edit in module.editor.requests],
    }


def main() -> None:
    """Edit, and validate, on this rank."""
    folder, backend = Path(sys.argv[1]), Path(sys.argv[2]).read_text()
    torch.set_num_threads(1)
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    torch.save({kind: run(kind, backend, folder) for kind in VALIDATED}, folder / f"rank{rank}.pt")


if __name__ == "__main__":
    main()
