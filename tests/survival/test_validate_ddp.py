"""A checkpoint that is validated on two processes: both answer with its edits, and find the same numbers."""

from pathlib import Path

import pytest

from tests.callbacks.training import statistics_file
from tests.ranks import run_ranks


@pytest.mark.slow
def test_two_processes_validate_the_edits_of_a_checkpoint(tmp_path: Path, trained_backend: str) -> None:
    statistics_file(tmp_path, trained_backend)
    (tmp_path / "backend.json").write_text(trained_backend)
    first, second = run_ranks("survival/validate_ddp_run.py", tmp_path, tmp_path / "backend.json")
    for kind, here in first.items():
        there = second[kind]
        assert here["found"] == there["found"] == pytest.approx(here["last"])
        assert here["written"] == there["written"] == here["expected"]
        assert here["count"] == there["count"] == 4
        assert here["ids"] == ["r0", "r1", "r2", "r3"]
        assert there["ids"] == (here["ids"] if kind == "grace" else [])  # rank zero alone needs the ledger
