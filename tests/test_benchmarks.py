"""The benchmarks run at a tiny size, and their table says what it should."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks import timing
from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.memory import AIM
from benchmarks.report import HEADER, cells

KEPT = 2 * 24 * 24 * 4 / 1e6  # MB of two n x n matrices of the tiny site
AIMS = {
    "targets": [None, 1 / 5],
    "keys": [1 / 5],
    "covariance": [None, None],
    "ledger": [None, None],
    "solves": [1 / 50, None, 1 / 10, None, None, None, None, None, 1 / 10],
    "held": [None] * 6,
    "memory": [AIM / KEPT] * 2 + [None] * 3,
    "device": [1 / 10, 1 / 40, 1 / 5, None, 1.0, None],
    "training": [1.01, 1.03, 1.03, None, None],
}


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """The benchmarks choose a number of threads; give back the one that was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_runs(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = main([name, "--tiny", "--threads", "1", "--output", str(tmp_path)])
    assert [row.aim for row in rows] == AIMS[name]
    for row in rows:
        assert row.benchmark == name
        assert row.overhead == (name == "training")
        assert 0 < row.low <= row.ratio <= row.high
        assert min(row.seconds, row.against_seconds) > 0
        assert len(cells(row)) == len(HEADER)
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["command"] == f"python -m benchmarks {name} --threads=1 --clock=wall --tiny"
    assert [row["way"] for row in written["rows"]] == [row.way for row in rows]
    table = [line for line in (tmp_path / "results.md").read_text().splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(rows)
    assert {line.count("|") for line in table} == {len(HEADER) + 1}
    assert rows[0].against.split()[0] in capsys.readouterr().out


def test_more_work_is_told_as_what_it_costs() -> None:
    row = timing.Row("training", "idle", "bare", 1.004, 0.998, 1.012, 5.0, 5.0, 3, overhead=True, aim=1.01)
    assert cells(row)[3:5] == ("+0.4 %", "-0.2 % .. +1.2 %")
    assert cells(row)[-1] == "under +1.0 %"


def test_a_peak_below_an_earlier_one_is_no_error() -> None:
    assert "none seen" in cells(timing.Row("memory", "a step", "the rest", 0.0, 0.0, 0.0, 0.0, 0.01, 1))


def test_ways_take_turns_and_ratios_are_taken_within_a_round() -> None:
    order: list[str] = []

    def way(name: str, seconds: list[float]) -> timing.Way:
        return lambda: (order.append(name), seconds.pop(0))[1]

    ways = {"plain": way("plain", [1.0, 10.0, 2.0]), "ours": way("ours", [0.5, 4.0, 1.2])}
    (row,) = timing.compare("name", ways, 3)
    assert order == ["plain", "ours"] * 3
    assert (row.low, row.ratio, row.high) == pytest.approx((0.45, 0.5, 0.55))
    assert (row.seconds, row.against_seconds) == (1.2, 2.0)
    assert cells(row)[3] == "2 x"
    assert cells(row)[4:6] == ("1.82 x .. 2.22 x", "2 / 1.2 s")


def test_faster_ways_have_aims_to_reach() -> None:
    row = timing.Row("keys", "walk", "whole", 0.1, 0.09, 0.12, 1.0, 10.0, 3, aim=0.2)
    assert cells(row)[-1] == "at least 5 x"


def test_equal_parts_are_counted_alone() -> None:
    ticks = iter([10.0, 16.0])
    assert timing.stopwatch(lambda: None, lambda: next(ticks), parts=3)() == 2.0


def test_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["speed"])
    assert "no benchmark speed" in capsys.readouterr().err


def test_a_model_for_a_gpu_is_not_made_on_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["device"])
    assert "use --device cuda, or --tiny on the CPU" in capsys.readouterr().err


def test_one_model_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = main(["keys", "--tiny", "--threads", "1", "--model", "gpt2", "--output", str(tmp_path)])
    assert {row.way.split(",")[0] for row in rows} == {"tiny GPT-2"}
    with pytest.raises(SystemExit):
        main(["keys", "--tiny", "--model", "llama", "--output", str(tmp_path)])
    assert "no model llama among those of this size" in capsys.readouterr().err


def test_cpu_seconds_are_those_of_one_thread(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["ledger", "--tiny", "--clock", "cpu", "--threads", "2"])
    assert "--threads 1" in capsys.readouterr().err
