"""Trains in child processes that are killed, until one of them lives to the end; prints whether it mattered.

Run as a script: `killing.py FOLDER BACKEND_JSON STEPS KILLS SEED`. Everything is imported once and children are forked,
so a kill costs a restart of the training and not of Python. Every fourth child kills itself in the middle of an edit,
between the writes of two layers; the others are killed after a random time.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_edit.editors.edited_site import EditedSite
from tests.callbacks.training import editing, fit, requests, statistics_file, stream, tiny_module


def train(folder: Path, backend: str, steps: int, suicide_at: int | None) -> None:
    """Train from the last checkpoint in the folder, if there is one, and write the final weights."""
    if suicide_at is not None:
        _kill_at_write(suicide_at)
    module, callback = tiny_module(backend), editing(statistics_file(folder.parent, backend), edits_per_commit=1)
    saver = ModelCheckpoint(folder, save_last=True, every_n_train_steps=1, enable_version_counter=False)
    last = folder / "last.ckpt"
    fit(
        module,
        stream(backend, requests(steps // 2)),
        [callback, saver],
        ckpt_path=last if last.exists() else None,
        max_steps=steps,
        enable_checkpointing=True,
    )
    state: dict[str, Any] = callback.state_dict()
    torch.save(
        {"weights": module.state_dict(), "editor": state["editor"], "count": callback.count}, folder / "final.pt"
    )


def _kill_at_write(number: int) -> None:
    """Have this process killed just after it has written so many weights."""
    deploy, done = EditedSite.deploy, 0

    def deadly(self: EditedSite, *args: Any, **options: Any) -> None:
        nonlocal done
        deploy(self, *args, **options)
        done += 1
        if done == number:
            os.kill(os.getpid(), signal.SIGKILL)

    EditedSite.deploy = deadly  # type: ignore[method-assign]


def fork(folder: Path, backend: str, steps: int, suicide_at: int | None = None) -> int:
    """Start a training process."""
    folder.mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if child:
        return child
    try:
        train(folder, backend, steps, suicide_at)
        os._exit(0)
    finally:
        os._exit(1)


def outcome(child: int) -> int:
    """Wait for a process; its exit code, negative if it was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    """Compare a run that nobody disturbs with one that is killed again and again."""
    root, backend = Path(sys.argv[1]), Path(sys.argv[2]).read_text()
    steps, kills, rng = int(sys.argv[3]), int(sys.argv[4]), random.Random(int(sys.argv[5]))
    torch.set_num_threads(1)
    statistics_file(root, backend)
    begin = time.monotonic()
    assert outcome(fork(root / "quiet", backend, steps)) == 0
    whole = time.monotonic() - begin
    killed = edits = 0
    for attempt in range(10 * kills + 10):
        suicide = rng.randint(1, 6) if attempt % 4 == 0 and killed < kills else None
        child = fork(root / "killed", backend, steps, suicide)
        if killed < kills and suicide is None:
            time.sleep(rng.uniform(0.1, 0.9) * whole)
            os.kill(child, signal.SIGKILL)
        code = outcome(child)
        killed += code == -signal.SIGKILL
        edits += code == -signal.SIGKILL and suicide is not None
        if code == 0:
            break
        assert code == -signal.SIGKILL, f"attempt {attempt} failed by itself with code {code}"
    quiet, disturbed = (torch.load(root / name / "final.pt", weights_only=True) for name in ("quiet", "killed"))
    print(f"killed={killed} in_edits={edits} equal={same(quiet, disturbed)} count={disturbed['count']}")


if __name__ == "__main__":
    from tests.callbacks.training import same

    main()
