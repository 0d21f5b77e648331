"""Two processes edit as one: ranks agree bit for bit, and with the one process that has the whole batch to 1e-5."""

from pathlib import Path

import pytest

from tests.callbacks.training import same
from tests.ranks import launch_ranks
from tests.survival.ddp_run import run


@pytest.mark.slow
def test_two_processes_are_one(tmp_path: Path, trained_backend: str) -> None:
    (tmp_path / "backend.json").write_text(trained_backend)
    ranks = launch_ranks("survival/ddp_run.py", tmp_path, tmp_path / "backend.json")

    first, second = (rank["whole"] for rank in ranks)
    assert first["count"] == 5
    for part in ("weights", "editor", "optimizer", "history", "reliability"):
        assert same(first[part], second[part]), part

    for rank in ranks:  # resumed as if it had never stopped
        assert same(rank["resumed"], rank["whole"])
        for part in ("weights", "editor", "optimizer", "count"):  # after the last step there is nothing to measure
            assert same(rank["finished"][part], rank["whole"][part]), part

    alone = run(trained_backend, tmp_path / "alone", 8)
    assert alone["history"] == first["history"]
    for name, value in alone["weights"].items():
        assert (first["weights"][name] - value).norm() <= 1e-5 * value.norm(), name

    assert ranks[0]["failure"] == "ZeroDivisionError: nothing left"
    assert ranks[1]["failure"].startswith("StrategyError: rank 0 could not go on (ZeroDivisionError: nothing left)")
