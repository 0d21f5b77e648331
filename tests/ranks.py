"""Work on two processes.

They are forked from a process that has imported what takes long, once for all tests; `launch_ranks` starts a script as
a user would, who pays for each import in each process.
"""

import importlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import forkserver, set_forkserver_preload
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.multiprocessing as mp
from lightning.fabric.utilities.rank_zero import rank_zero_only

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 1500
"""More than any of them takes on a busy machine: one that hangs fails, and does not hold up the suite for ever."""
PRELOAD = ["tests.callbacks.test_reasoning_benchmark", "lightning_edit.editors", "lightning_edit.geometry"]
"""What is imported before processes are forked: with it, most of what any of them imports."""
QUIET = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def launch_ranks(script: str, folder: Path, *further: Path) -> list[dict[str, Any]]:
    """What each of two ranks ended with, of a script whose second process Lightning starts.

    Args:
        script: The script, relative to `tests`.
        folder: Where the ranks leave what they ended with, as `rankN.pt`; the script's first argument.
        further: The script's other arguments.
    """
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / script), str(folder), *map(str, further)],
        env={**os.environ, **QUIET},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return load_ranks(folder)


def run_ranks(script: str, folder: Path, *further: Path) -> list[dict[str, Any]]:
    """The same of a script whose `main` is called in two forked processes, as a cluster would start them.

    Args:
        script: The script, relative to `tests`.
        folder: Where the ranks leave what they ended with, as `rankN.pt`; the script's first argument.
        further: The script's other arguments.
    """
    _fork(_run_script, script, [str(folder), *map(str, further)], free_port())
    return load_ranks(folder)


def in_two_processes(work: Callable[[int], Any], folder: Path) -> list[Any]:
    """What a function gives on each of two gloo processes.

    Args:
        work: The function of the rank, from the top of a module.
        folder: Where the ranks leave what it gave, as `rankN.pt`.
    """
    _fork(_run_work, work, folder, free_port())
    return load_ranks(folder)


def load_ranks(folder: Path) -> list[Any]:
    """What two ranks left in a folder."""
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _fork(work: Callable[..., None], *arguments: Any) -> None:
    """Call a function with a rank and arguments in two processes; raises what one of them raised."""
    set_forkserver_preload(PRELOAD)
    with mock.patch.dict(os.environ, QUIET):
        forkserver.ensure_running()  # no more than once in this process
    context = mp.start_processes(work, arguments, nprocs=2, join=False, start_method="forkserver")
    end = time.monotonic() + SECONDS
    while not context.join(timeout=5):
        if time.monotonic() > end:
            for process in context.processes:
                process.kill()
            raise TimeoutError(f"two processes have not ended after {SECONDS} seconds")


def _run_script(rank: int, script: str, arguments: list[str], port: int) -> None:
    """The script on one rank, which finds its place in variables, as those that torchrun starts do."""
    places = {"NODE_RANK": 0, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in places.items()}
    rank_zero_only.rank = rank  # read from the variables when Lightning was imported, before they were there
    sys.argv = [script, *arguments]
    importlib.import_module("tests." + script.removesuffix(".py").replace("/", ".")).main()


def _run_work(rank: int, work: Callable[[int], Any], folder: Path, port: int) -> None:
    """The function on one rank, within a process group."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.save(work(rank), folder / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()
