"""Two processes that are guarded and measured: rank zero asks, and both end with the same weights and numbers."""

import shutil
from pathlib import Path

import pytest

from tests.callbacks.training import same
from tests.ranks import run_ranks


@pytest.mark.slow
def test_two_processes_agree(trained_backend: str, statistics: Path, tmp_path: Path) -> None:
    (tmp_path / "backend.json").write_text(trained_backend)
    shutil.copy(statistics, tmp_path / "statistics.safetensors")
    first, second = run_ranks("callbacks/geometry_ranks_run.py", tmp_path)
    for part in ("weights", "geometry", "metrics", "count"):
        assert same(first[part], second[part]), part
    assert first["count"] == 4
    assert first["refused"] == ["r1", "r2"]  # the other halves of their batches passed
    assert second["refused"] == []
    assert [row["count"] for row in first["geometry"]] == [0, 2, 4, 4]
    for row in first["geometry"]:
        assert row["layer1/null/R_mean_abs_max"] == row["layer1/null/norm_max"] == 0
    assert first["geometry"][0]["layer1/total/R_mean_abs_max"] == 0
    assert first["geometry"][2]["layer1/commit/norm_mean"] > 0
    assert first["metrics"]["guard/spent/R_median"] > 0
    assert first["pictures"] == ["growth.png", "layer0.png", "layer1.png"]
    assert second["pictures"] is None
