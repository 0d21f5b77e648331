"""Trains in child processes that are killed, again and again, and prints whether it mattered.

Run as a script: `killing.py FOLDER BACKEND_JSON STEPS KILLS SEED`. One run that nobody disturbs, then rounds: a round
is one training run, started anew from its last checkpoint whenever it was killed, and must end like the undisturbed
one. There are as many rounds as it takes to kill so often. Everything is imported once and children are forked, so a
kill costs a restart of the training and not of Python. Every fourth child kills itself in the middle of an edit,
between the writes of two layers; the others are killed after a random time of training, while they write a checkpoint
too.
"""

import os
import random
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_edit.editors.edited_site import EditedSite
from tests.callbacks.training import editing, fit, requests, same, statistics_file, stream, tiny_module

REACH = 0.25  # of the training time: a child that is killed lives half of it on average


class Announce(pl.Callback):
    """Says that training begins."""

    def __init__(self, channel: int) -> None:
        self._channel = channel

    def on_train_start(self, *_: Any) -> None:
        """Write one byte."""
        os.write(self._channel, b"!")


@dataclass(frozen=True)
class Child:
    """A training process.

    Args:
        pid: Its number.
        channel: Where it says that training begins.
    """

    pid: int
    channel: int

    def begin(self) -> None:
        """Wait until training begins, or until the process ends without it."""
        os.read(self.channel, 1)

    def end(self) -> int:
        """Wait for the process; its exit code, negative if it was killed."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.channel)  # not before: writing where nobody can read would end the process
        return code


def fork(folder: Path, backend: str, steps: int, suicide_at: int | None = None) -> Child:
    """Start a training process."""
    folder.mkdir(parents=True, exist_ok=True)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return Child(pid, reading)
    try:
        os.close(reading)
        train(folder, backend, steps, writing, suicide_at)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def train(folder: Path, backend: str, steps: int, channel: int, suicide_at: int | None) -> None:
    """Train from the last checkpoint in the folder, if there is one, and write the final weights."""
    if suicide_at is not None:
        _kill_at_write(suicide_at)
    module, callback = tiny_module(backend), editing(statistics_file(folder.parent, backend), edits_per_commit=1)
    saver = ModelCheckpoint(folder, save_last=True, every_n_train_steps=1, enable_version_counter=False)
    last = folder / "last.ckpt"
    fit(
        module,
        stream(backend, requests(steps // 2)),
        [callback, saver, Announce(channel)],
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


@dataclass
class Tormentor:
    """Kills children until it has killed enough.

    Args:
        backend: The tokenizer's JSON.
        steps: Optimizer steps of one training run.
        wanted: How many kills are enough.
        rng: Decides when.
        whole: Seconds that training takes undisturbed.
        killed: Kills so far.
        in_edits: Those in the middle of an edit.
        attempts: Children so far.
    """

    backend: str
    steps: int
    wanted: int
    rng: random.Random
    whole: float
    killed: int = 0
    in_edits: int = 0
    attempts: int = 0

    def round(self, folder: Path) -> dict[str, Any]:
        """One training run; what it ended with."""
        while (code := self.attempt(folder)) != 0:
            assert code == -signal.SIGKILL, f"attempt {self.attempts} failed by itself with code {code}"
            self.killed += 1
        final: dict[str, Any] = torch.load(folder / "final.pt", weights_only=True)
        return final

    def attempt(self, folder: Path) -> int:
        """One child, killed if it is still needed; its exit code."""
        more, self.attempts = self.killed < self.wanted, self.attempts + 1
        suicide = self.rng.randint(1, 6) if more and self.attempts % 4 == 1 else None
        child = fork(folder, self.backend, self.steps, suicide)
        if more and suicide is None:
            child.begin()
            time.sleep(self.rng.uniform(0, REACH * self.whole))
            os.kill(
                child.pid, signal.SIGKILL
            )  # a child that is done already is waited for below, so the pid is its own
        code = child.end()
        self.in_edits += suicide is not None and code == -signal.SIGKILL
        return code


def main() -> None:
    """Compare a run that nobody disturbs with runs that are killed again and again."""
    root, backend = Path(sys.argv[1]), Path(sys.argv[2]).read_text()
    steps, kills, rng = int(sys.argv[3]), int(sys.argv[4]), random.Random(int(sys.argv[5]))
    torch.set_num_threads(1)
    statistics_file(root, backend)
    child = fork(root / "quiet", backend, steps)
    child.begin()
    begin = time.monotonic()
    assert child.end() == 0
    quiet = torch.load(root / "quiet" / "final.pt", weights_only=True)
    tormentor = Tormentor(backend, steps, kills, rng, time.monotonic() - begin)
    equal, rounds = True, 0
    while tormentor.killed < kills:
        rounds += 1
        equal = same(tormentor.round(root / f"round {rounds}"), quiet) and equal
    found = {"killed": tormentor.killed, "in_edits": tormentor.in_edits, "rounds": rounds, "equal": equal}
    print(*(f"{name}={value}" for name, value in {**found, "count": quiet["count"]}.items()))


if __name__ == "__main__":
    main()
