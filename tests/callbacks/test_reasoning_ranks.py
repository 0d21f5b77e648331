"""Two processes that are benchmarked get the same numbers, with whole weights and with weights in pieces."""

from pathlib import Path

import pytest

from tests.ranks import run_ranks


@pytest.mark.slow
def test_two_processes_get_the_same_numbers(tmp_path: Path) -> None:
    first, second = run_ranks("callbacks/reasoning_ranks_run.py", tmp_path)
    assert first == second
    for name, counts in (("ddp", [0, 2, 4]), ("fsdp", [0, 0, 0])):
        found = first[name]
        assert [(row["count"], row["step"]) for row in found["history"]] == list(zip(counts, (0, 2, 4), strict=True))
        last = {f"reasoning/{task}": value for task, value in found["history"][-1].items() if "world" in task}
        assert found["metrics"] == pytest.approx(last, rel=1e-6)
    for whole, pieces in zip(first["ddp"]["history"], first["fsdp"]["history"], strict=True):
        assert whole["world_perplexity"] == pytest.approx(pieces["world_perplexity"], rel=1e-5)
