"""A process that is killed at any moment, in the middle of an edit too, goes on as if nothing had happened."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def torment(folder: Path, backend: str, steps: int, kills: int, seed: int) -> dict[str, str]:
    """Run `killing.py` and read its verdict."""
    (folder / "backend.json").write_text(backend)
    arguments = [str(folder), str(folder / "backend.json"), str(steps), str(kills), str(seed)]
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "survival" / "killing.py"), *arguments],
        # checkpoints are written in TMPDIR and moved to their place, which is one act on one file system only
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(re.findall(r"(\w+)=(\w+)", done.stdout.strip().splitlines()[-1]))


@pytest.mark.slow
def test_killed_and_resumed(tmp_path: Path, trained_backend: str) -> None:
    verdict = torment(tmp_path, trained_backend, steps=10, kills=4, seed=1)
    assert verdict["equal"] == "True"
    assert verdict["count"] == "5"
    assert int(verdict["killed"]) >= 4
    assert int(verdict["in_edits"]) >= 1


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5))
def test_killed_and_resumed_for_long(tmp_path: Path, trained_backend: str, seed: int) -> None:
    verdict = torment(tmp_path, trained_backend, steps=60, kills=40, seed=seed)
    assert (verdict["equal"], verdict["count"]) == ("True", "30")
    assert int(verdict["killed"]) >= 40
