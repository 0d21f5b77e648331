"""Two gloo processes, and editors of every family that edit in them one after another, each in a Trainer of its own.

Run as a script, `editors_ddp_run.py FOLDER BACKEND_JSON`, and Lightning starts both. What each rank ends with is put in
`FOLDER/rank<N>.pt`. Everything is in float64, so that what the ranks' mean of gradients rounds is of no weight.
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch

from lightning_edit import save_edits
from lightning_edit.callbacks import ContinualEdit, shared_targets
from lightning_edit.decoding import decode
from lightning_edit.errors import StrategyError
from lightning_edit.evaluation.likelihood import log_likelihoods
from lightning_edit.targets import optimize_targets
from tests.callbacks.training import QUICK, SaveAt, fit, requests, tiny_module
from tests.editors.conformance import obedient
from tests.survival.ddp_run import data, two

STEPS = 4
ADAPTER = {"steps": 3, "rank": 2}
SIDE = {"layer": 1, "lr": 1.0, "steps": 4, "alpha": 0.2, "beta": 1.5, "gamma": 1.0, "contexts": ["Well. "]}
WORDS = {"style": "base", "select": "{facts} ? {question} :", "answer": "{fact} {prompt}"}
TEXTS = {"top_k": 1, "max_new_tokens": 16, "templates": WORDS}
EDITORS: dict[str, tuple[str, dict[str, Any]]] = {
    "memit": ("memit", {**QUICK, "stale_loss": -10.0}),  # a refresh optimises all targets again
    "ft_l": ("ft_l", {"layers": [1], "steps": 3, "norm_constraint": 0.1}),
    "lora": ("lora", ADAPTER),
    "adalora": ("adalora", {**ADAPTER, "init_rank": 3}),
    "mend": ("mend", {}),
    "grace": ("grace", {"layer": 1, "radius": 0.05, "lr": 0.5, "steps": 4}),
    "wise": ("wise", {**SIDE, "texts": ["The river is long."], "unrelated": 1}),
    "scr": ("scr", TEXTS),
    "ice": ("ice", TEXTS),
    "hybrid": ("hybrid", {"editor": "memit", "editor_options": QUICK, "memory": TEXTS}),
    "hybrid of ft": ("hybrid", {"editor": "ft_m", "editor_options": {"layers": [1], "steps": 3}, "memory": TEXTS}),
}
RESUMED = ("grace", "hybrid", "hybrid of ft")


def run(
    name: str, backend: str, folder: Path, batch_size: int, resume: int | None = None, **options: Any
) -> dict[str, Any]:
    """One fit; all that could differ. `FOLDER` has the network of MEND."""
    editor, given = EDITORS[name]
    if name == "mend":
        given = {"checkpoint": str(folder / "mend.pt")}
    module = tiny_module(backend, dtype=torch.float64)
    edits = ContinualEdit(
        editor,
        every_n_steps=2,
        edits_per_commit=3,
        editor_options=given,
        statistics=folder / "statistics.safetensors",
        refresh=True,
    )
    saver = SaveAt(folder / name.replace(" ", "_"), *(() if resume else (3,)))
    ckpt = folder / name.replace(" ", "_") / f"{resume}.ckpt" if resume else None
    fit(
        module,
        data(backend, batch_size),
        [edits, saver],
        ckpt_path=ckpt,
        max_steps=STEPS,
        precision="64-true",
        limit_val_batches=0,
        **options,
    )
    module.eval()
    if name == "grace" and resume:  # every rank calls, and the first one writes
        save_edits(module, folder / "saved")
    prompts = [request.prompt for request in requests(5)]
    return {
        "weights": dict(module.state_dict()),
        "state": module.editor.state_dict(),
        "count": edits.count,
        "ids": [request.id for request in module.editor.requests],
        "written": decode(module.language_model, prompts, 4),
        "likely": log_likelihoods(module.language_model, prompts, ["Rome"] * len(prompts)),
    }


def main() -> None:
    """Train with every editor, and resume with some, on this rank."""
    folder, backend = Path(sys.argv[1]), Path(sys.argv[2]).read_text()
    torch.set_num_threads(1)
    found: list[int] = []

    def count(lm: Any, columns: Any, *rest: Any) -> Any:
        found.append(len(columns))
        return optimize_targets(lm, columns, *rest)

    shared_targets.optimize_targets = count  # type: ignore[assignment]
    with obedient():
        results = {name: run(name, backend, folder, 4, **two()) for name in EDITORS}
        resumed = {name: run(name, backend, folder, 4, 3, **two()) for name in RESUMED}
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    columns = list(found)
    failed = failure(backend, folder, rank)
    torch.save(
        {"results": results, "resumed": resumed, "columns": columns, "failed": failed}, folder / f"rank{rank}.pt"
    )


def failure(backend: str, folder: Path, rank: int) -> dict[str, Any]:
    """What a rank hears, and what it is left with, when the helper fails in the middle of an edit."""

    def stumble(*given: Any) -> Any:
        if rank == 1:
            raise ZeroDivisionError("nothing left")
        return optimize_targets(*given)

    shared_targets.optimize_targets = stumble  # type: ignore[assignment]
    module = tiny_module(backend, dtype=torch.float64)
    edits = ContinualEdit("memit", every_n_steps=2, editor_options=QUICK, statistics=folder / "statistics.safetensors")
    said = "nothing"
    try:
        fit(module, data(backend, 4), [edits], max_steps=STEPS, precision="64-true", limit_val_batches=0, **two())
    except StrategyError as error:
        said = str(error)
    return {"said": said, "count": edits.count, "weights": dict(module.state_dict())}


if __name__ == "__main__":
    main()
