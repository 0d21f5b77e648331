"""Scripts that train on two processes, started as a user would start them; each rank leaves `rankN.pt` in a folder."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 1500
"""More than any of them takes on a busy machine: one that hangs fails, and does not hold up the suite for ever."""


def run_ranks(script: str, folder: Path, *further: Path) -> list[dict[str, Any]]:
    """What each of two ranks ended with.

    Args:
        script: The script, relative to `tests`.
        folder: Where the ranks leave what they ended with; the script's first argument.
        further: The script's other arguments.
    """
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / script), str(folder), *map(str, further)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
