"""Two gloo processes that train and edit a model cut into pieces; run as a script, `fsdp_run.py FOLDER BACKEND_JSON`.

What each rank ends with is written to `FOLDER/rank<N>.pt`.
"""

import os
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from lightning_edit.callbacks import ContinualEdit, EditMonitor, KeyCovarianceTracker
from lightning_edit.editors import get_editor
from lightning_edit.errors import StrategyError
from lightning_edit.sharded_module import ShardedEditableModule
from tests.callbacks.training import SaveAt, editing, fit, make_tokenizer, tiny_module
from tests.survival.ddp_run import STEPS, data
from tests.survival.fsdp_edits import SCENES, adapted, exported, play, shares


def two(tensor_parallel: int = 1) -> dict[str, Any]:
    """Two processes on CPU; a strategy belongs to one Trainer."""
    strategy = ModelParallelStrategy(
        data_parallel_size=2 // tensor_parallel,
        tensor_parallel_size=tensor_parallel,
        save_distributed_checkpoint=False,
        process_group_backend="gloo",
    )
    return {"devices": 2, "strategy": strategy}


def sharded(backend: str) -> ShardedEditableModule:
    """The tiny module, ready to be cut."""
    return ShardedEditableModule.from_model(tiny_module(backend).model, make_tokenizer(backend), lr=1e-3)


def run(backend: str, folder: Path, batch_size: int, resume: int | None = None, **options: Any) -> dict[str, Any]:
    """One fit; all that could differ."""
    module = sharded(backend)
    tracker = KeyCovarianceTracker(every_n_batches=1, tokens_per_batch=10_000, min_tokens=300)
    edits = editing(repair_every_n_steps=1)
    saver = SaveAt(folder, *(step for step in (3, STEPS) if step > (resume or 0)))
    ckpt = None if resume is None else folder / f"{resume}.ckpt"
    fit(
        module,
        data(backend, batch_size),
        [tracker, edits, saver],
        ckpt_path=ckpt,
        max_steps=STEPS,
        limit_val_batches=0,
        **options,
    )
    assert module.editor is not None
    pieces = sum(isinstance(value, DTensor) for value in module.state_dict().values())
    weights = {name: whole(value) for name, value in module.state_dict().items()}
    return {"weights": weights, "editor": module.editor.state_dict(), "count": edits.count, "pieces": pieces}


def whole(value: Any) -> Any:
    """A tensor, put together if it was cut."""
    return value.full_tensor() if isinstance(value, DTensor) else value.clone() if isinstance(value, Tensor) else value


def refusals(backend: str) -> list[str]:
    """What is said to what cannot work."""
    other = ContinualEdit(get_editor("ft_l"), every_n_steps=2)
    tries: list[tuple[list[pl.Callback], int]] = [
        ([other], 1),
        ([editing()], 2),
        ([editing(statistics_tokens=300)], 1),
        ([editing(), EditMonitor(max_new_tokens=3)], 1),
    ]
    said = []
    for callbacks, tensor_parallel in tries:
        try:
            fit(sharded(backend), data(backend, 4), callbacks, max_steps=1, **two(tensor_parallel))
        except (StrategyError, NotImplementedError) as error:
            said.append(f"{type(error).__name__}: {error}")
    return said


def main() -> None:
    """Train, resume in the middle, edit without a Trainer, save, and be refused, on this rank."""
    folder, backend = Path(sys.argv[1]), Path(sys.argv[2]).read_text()
    torch.set_num_threads(1)
    starts = {"whole": None, "resumed": 3}
    results = {name: run(backend, folder, 4, resume=start, **two()) for name, start in starts.items()}
    mesh = init_device_mesh("cpu", (2,))  # over the processes that the Trainer has started
    results["scenes"] = {scene: play(backend, scene, mesh) for scene in SCENES}
    results |= {"shares": shares(mesh), "adapted": adapted(backend, folder, mesh), "refusals": refusals(backend)}
    results["exported"] = exported(backend, folder, mesh)
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    torch.save(results, folder / f"rank{rank}.pt")


if __name__ == "__main__":
    main()
