"""Two gloo processes that are guarded and measured while they train; run as a script, `geometry_ranks_run.py FOLDER`.

The folder holds `backend.json` and `statistics.safetensors`. What each rank ends with goes to `FOLDER/rank<N>.pt`.
"""

import os
import sys
from pathlib import Path

import torch
from lightning.pytorch.strategies import DDPStrategy

from lightning_edit.callbacks import EditGuard, GeometryMonitor
from tests.callbacks.test_edit_guard import Culprit
from tests.callbacks.training import editing, fit, requests, stream, texts, tiny_module, weights


def main() -> None:
    """One fit; all that could differ between the ranks."""
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    backend = (folder / "backend.json").read_text()
    edits, module = editing(folder / "statistics.safetensors"), tiny_module(backend)
    guard = EditGuard(
        {"mood": 0.0, "R_median": 1e9}, measures={"mood": Culprit(edits, "r1", "r2")}, texts=texts(6), batch_size=6
    )
    watch = GeometryMonitor(
        at_counts=[2, 4], samples=200, sketch=50, subspaces=[4], first_order=2, budget_seconds=None, texts=texts(12)
    )
    trainer = fit(
        module,
        stream(backend, requests(4)),
        [edits, guard, watch],
        default_root_dir=folder,
        devices=2,
        strategy=DDPStrategy(process_group_backend="gloo"),
    )
    found = {
        "weights": weights(module),
        "geometry": watch.history,
        "metrics": {name: float(value) for name, value in trainer.callback_metrics.items() if "/" in name},
        "refused": [entry.id for entry in guard.refusals],
        "count": edits.count,
        "pictures": sorted(path.name for path in (folder / "geometry").glob("*.png")) if watch.probe else None,
    }
    torch.save(found, folder / f"rank{os.environ.get('LOCAL_RANK', '0')}.pt")


if __name__ == "__main__":
    main()
