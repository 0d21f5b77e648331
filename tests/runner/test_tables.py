"""Tables in the papers' shape: which rows, which columns, and when there is none."""

from lightning_edit.runner.results import Curve, ReportTable, RunResult
from lightning_edit.runner.tables import MOST_COLUMNS, TABLES, by_count, by_dimension, paper_tables

FOUR = {"reliability": 0.9, "generalization": 0.7, "locality": 0.5, "portability": 0.3}


def test_four_dimensions_and_their_mean() -> None:
    results = [RunResult("memit", {**FOUR, "reliability_std": 0.01}), RunResult("control", {"locality": 1.0})]
    table = by_dimension(results)
    assert table.columns == ["method", "Rel.", "Gen.", "Loc.", "Port.", "Avg."]
    assert table.rows[0][:5] == ["memit", "0.900 ± 0.010", 0.7, 0.5, 0.3]
    assert abs(float(table.rows[0][5]) - 0.6) < 1e-12
    assert table.rows[1] == ["control", None, None, 1.0, None, None]  # a mean of one would be no mean of four


def test_numbers_of_edits_are_columns() -> None:
    curves = {
        "edit/count": Curve([5, 10, 20], [10, 20, 20]),
        "edit/reliability": Curve([5, 10, 20], [1.0, 0.9, 0.8]),
        "edit/locality": Curve([10], [0.7]),
    }
    other = {"edit/count": Curve([1], [1]), "edit/reliability": Curve([1], [0.6])}
    table = by_count([RunResult("memit", curves=curves), RunResult("rome", curves=other), RunResult("none")])
    assert table.columns == ["method", "", "N = 1", "N = 10", "N = 20"]
    assert table.rows == [
        ["memit", "Rel.", None, 1.0, 0.8],  # of two values at 20 the later one
        ["memit", "Loc.", None, None, 0.7],
        ["rome", "Rel.", 0.6, None, None],
    ]
    assert by_count([RunResult("rome", curves=other)]).rows == []  # one number is no course


def test_every_table_has_the_spread_over_seeds() -> None:
    """One standard deviation, from the row or from the band around a curve."""
    curves = {
        "edit/count": Curve([1, 2], [10, 20]),
        "edit/reliability": Curve([1, 2], [1.0, 0.8]),
        "edit/reliability:low": Curve([1, 2], [1.0, 0.7]),
        "edit/reliability:high": Curve([1, 2], [1.0, 0.9]),
    }
    row = {
        "reliability_high_logp": 0.5,
        "reliability_high_logp_std": 0.25,
        "failures": 3.0,
        "failures_std": 1.0,
        "state_bytes": 2.0**21,
        "state_bytes_std": 2.0**20,
        "seconds_per_edit": 0.5,
    }
    result = RunResult("memit", row, curves)
    assert by_count([result]).rows == [["memit", "Rel.", "1.000 ± 0.000", "0.800 ± 0.100"]]
    found = {table.title: table.rows for table in paper_tables([result], ["confidence", "failures", "cost"])}
    assert found["By confidence in the old answer"] == [["memit", "0.500 ± 0.250"]]
    assert found["How reasoning fails"] == [["memit", "3.000 ± 1.000"]]
    assert found["Cost"] == [["memit", 0.5, "2.000 ± 1.000"]]


def test_memory_of_the_process_is_said_to_be_that() -> None:
    row = {"seconds_per_edit": 0.5, "peak_rss_bytes": 2.0**21, "peak_cuda_bytes": 2.0**20}
    [cost] = paper_tables([RunResult("memit", row)], ["cost"])
    assert cost.columns[2:] == ["process's peak memory so far, MiB", "peak GPU memory, MiB"]
    assert "what ran before in the same process counts, too" in cost.text


def test_many_numbers_of_edits_are_thinned() -> None:
    steps = [float(step) for step in range(1, 101)]
    curves = {"edit/count": Curve(steps, steps), "edit/reliability": Curve(steps, steps)}
    table = by_count([RunResult("a", curves=curves)])
    assert len(table.columns) == 2 + MOST_COLUMNS
    assert (table.columns[2], table.columns[-1]) == ("N = 1", "N = 100")
    assert table.rows[0][2] == 1.0


def test_only_tables_with_numbers_are_made() -> None:
    own = ReportTable("Cases", ["case"], [["x"]])
    row = {**FOUR, "reliability_high_logp": 0.8, "reliability_low_logp": 1.0, "seconds_per_edit": 0.1}
    plain = RunResult("a", dict(row))
    assert [table.title for table in paper_tables([plain], None)] == ["By confidence in the old answer"]
    full = RunResult("b", {**row, "failures": 2.0, "failure/hallucination": 1.0, "state_bytes": 2**21}, tables=[own])
    titles = [table.title for table in paper_tables([plain, full], None)]
    assert titles == ["By confidence in the old answer", "How reasoning fails", "Cost", "Cases"]
    cost = paper_tables([plain, full], ["cost"])[0]
    assert cost.columns == ["method", "seconds per edit", "state, MiB"]
    assert cost.rows == [["b", 0.1, 2.0]]  # what the main table says already is not said again
    split = paper_tables([plain], ["confidence"])[0]
    assert split.columns == ["method", "Rel. high", "Rel. low"]
    assert split.rows == [["a", 0.8, 1.0]]
    assert [table.title for table in paper_tables([full], ["dimensions"])] == ["The four dimensions", "Cases"]
    assert paper_tables([RunResult("c")], list(TABLES)) == []
