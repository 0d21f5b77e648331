"""Two gloo processes that train and edit; run as a script, `ddp_run.py FOLDER BACKEND_JSON`, and Lightning starts both.

What each rank ends with is written to `FOLDER/rank<N>.pt`.
"""

import os
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DDPStrategy

from lightning_edit.callbacks import EditMonitor, KeyCovarianceTracker
from lightning_edit.data.stream import EditStream
from lightning_edit.errors import StrategyError
from tests.callbacks.training import SaveAt, editing, fit, make_tokenizer, requests, texts, tiny_module

STEPS = 6


def two() -> dict[str, Any]:
    """Two processes on CPU; a strategy belongs to one Trainer."""
    return {"devices": 2, "strategy": DDPStrategy(process_group_backend="gloo")}


class FullRows(EditStream):
    """Without the padded last row: the mean over ranks is then the mean over the global batch."""

    def setup(self, stage: str | None = None) -> None:
        """Leave the last row out."""
        super().setup(stage)
        for rows in self._rows.values():
            for name, values in rows.items():
                rows[name] = values[rows["attention_mask"].all(1)] if name != "attention_mask" else values
            rows["attention_mask"] = rows["attention_mask"][rows["attention_mask"].all(1)]


def data(backend: str, batch_size: int) -> EditStream:
    """The same rows for one process and for two."""
    options = {"train": texts(60), "val": texts(20), "max_length": 24, "batch_size": batch_size}
    return FullRows(requests(5), tokenizer=make_tokenizer(backend), **options)


def callbacks() -> list[pl.Callback]:
    """Edits from the tracker's statistics, watched."""
    tracker = KeyCovarianceTracker(every_n_batches=1, tokens_per_batch=10_000, min_tokens=300)
    return [tracker, editing(repair_every_n_steps=1), EditMonitor(max_new_tokens=3)]


def run(backend: str, folder: Path, batch_size: int, resume: int | None = None, **options: Any) -> dict[str, Any]:
    """One fit; all that could differ."""
    module, parts = tiny_module(backend), callbacks()
    saver = SaveAt(folder, *(step for step in (3, STEPS) if step > (resume or 0)))
    ckpt = None if resume is None else folder / f"{resume}.ckpt"
    trainer = fit(
        module,
        data(backend, batch_size),
        [*parts, saver],
        ckpt_path=ckpt,
        max_steps=STEPS,
        val_check_interval=4,
        **options,
    )
    edits, watch = parts[1], parts[2]
    assert module.editor is not None
    return {
        "weights": dict(module.state_dict()),
        "editor": module.editor.state_dict(),
        "optimizer": trainer.optimizers[0].state_dict()["state"],
        "count": edits.count,  # type: ignore[attr-defined]
        "history": watch.history,  # type: ignore[attr-defined]
        "reliability": None if resume == STEPS else float(trainer.callback_metrics["edit/reliability"]),
    }


def failure(backend: str) -> str:
    """What a rank hears when the editor fails on rank zero."""
    callback = editing(statistics_tokens=300)

    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("nothing left")

    assert callback.editor is not None
    callback.editor.edit = fail  # type: ignore[method-assign]
    try:
        fit(tiny_module(backend), data(backend, 4), [callback], **two())
    except (ZeroDivisionError, StrategyError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def main() -> None:
    """Train, resume in the middle and at the end, and fail, on this rank."""
    folder, backend = Path(sys.argv[1]), Path(sys.argv[2]).read_text()
    torch.set_num_threads(1)
    starts = {"whole": None, "resumed": 3, "finished": STEPS}
    results = {name: run(backend, folder, 4, resume=start, **two()) for name, start in starts.items()}
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    torch.save({**results, "failure": failure(backend)}, folder / f"rank{rank}.pt")


if __name__ == "__main__":
    main()
