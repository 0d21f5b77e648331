"""Tables in the shape of the papers': dimensions, numbers of edits, confidence, failure modes, cost.

Knows which keys of rows and curves belong together. Refuses to know how they were measured, and how a table is written
down (`report.py`, `page.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from lightning_edit.judges.failure_modes import NAMES
from lightning_edit.runner.cells import number, with_spread
from lightning_edit.runner.recipe import PaperTable
from lightning_edit.runner.results import Curve, ReportTable, RunResult, Scalar

DIMENSIONS = MappingProxyType(
    {"reliability": "Rel.", "generalization": "Gen.", "locality": "Loc.", "portability": "Port."}
)
"""The four dimensions with their names in the papers' tables."""
MOST_COLUMNS = 10
_HALVES = (("high_logp", "high"), ("low_logp", "low"))
_COST = {
    "seconds_per_edit": ("seconds per edit", 1.0),
    "targets_seconds_per_edit": ("targets, s", 1.0),
    "keys_seconds_per_edit": ("keys, s", 1.0),
    "solve_seconds_per_edit": ("solve, s", 1.0),
    "write_seconds_per_edit": ("write, s", 1.0),
    "latency_seconds": ("latency, s", 1.0),
    "latency_ratio": ("latency, x untouched", 1.0),
    "peak_rss_bytes": ("process's peak memory so far, MiB", 2**20),
    "peak_cuda_bytes": ("peak GPU memory, MiB", 2**20),
    "state_bytes": ("state, MiB", 2**20),
}


def paper_tables(results: Sequence[RunResult], wanted: Sequence[PaperTable] | None) -> list[ReportTable]:
    """The tables for which the runs have numbers, and then the runs' own.

    Args:
        results: What the runs came to.
        wanted: Names of tables, in order; all but `dimensions`, which repeats the main table, where None.
    """
    names = [name for name in TABLES if name != "dimensions"] if wanted is None else wanted
    made = [TABLES[name](results) for name in names]
    return [table for table in made if table.rows] + [table for result in results for table in result.tables]


def by_dimension(results: Sequence[RunResult]) -> ReportTable:
    """A row for each run, a column for each dimension and their mean; *Revisiting*, Tables 29 to 32.

    Args:
        results: What the runs came to.
    """
    present = [key for key in DIMENSIONS if any(key in result.row for result in results)]
    rows: list[list[Scalar | None]] = []
    for result in results:
        values = [number(result.row, key) for key in present]
        known = [value for value in values if value is not None]
        if known:
            spread = [with_spread(result.row, key) for key in present]
            rows.append([result.label, *spread, sum(known) / len(known) if len(known) == len(values) else None])
    return ReportTable("The four dimensions", ["method", *[DIMENSIONS[key] for key in present], "Avg."], rows)


def by_count(results: Sequence[RunResult]) -> ReportTable:
    """A row for each run and dimension, a column for each number of edits; *Revisiting*, Table 37.

    Args:
        results: What the runs came to, with `edit/count` and the dimensions among their curves.
    """
    points = {result.label: _points(result) for result in results}
    counts = _thinned(sorted({count for own in points.values() for curve in own.values() for count in curve.steps}))
    rows: list[list[Scalar | None]] = []
    for label, own in points.items():
        for key, curve in own.items():
            at = {count: {"x": value} for count, value in zip(curve.steps, curve.values, strict=True)}
            wide = _spread(results, label, key)
            cells = [with_spread({**at.get(count, {}), **wide.get(count, {})}, "x") for count in counts]
            rows.append([label, DIMENSIONS[key], *cells])
    several = rows if len(counts) > 1 else []
    return ReportTable("By number of edits", ["method", "", *[f"N = {count:g}" for count in counts]], several)


def by_confidence(results: Sequence[RunResult]) -> ReportTable:
    """Each dimension for the edits whose old answer the model was surer of, and for the others; *Revisiting*, Table 38.

    Args:
        results: What the runs came to, with `reliability_high_logp` and the like in their rows.
    """
    keys = [(f"{key}_{half}", f"{name} {word}") for key, name in DIMENSIONS.items() for half, word in _HALVES]
    text = (
        "Edits in two halves, by the unedited model's mean log-probability per token of the old answer: high (stubborn "
        "errors) and low (simple ones)."
    )
    return _of_rows("By confidence in the old answer", results, keys, text)


def by_failure(results: Sequence[RunResult]) -> ReportTable:
    """Share of each failure mode among the failed edits; *Revisiting*, Table 39.

    Args:
        results: What the runs came to, with `failures` and `failure/<mode>` in their rows.
    """
    keys = [("failures", "failed edits"), *[(f"failure/{mode}", name) for mode, name in NAMES.items()]]
    return _of_rows("How reasoning fails", results, keys, "Shares of the failed edits, as another model reads them.")


def by_cost(results: Sequence[RunResult]) -> ReportTable:
    """Time, latency, memory and size; *Revisiting*, Fig. 9.

    Args:
        results: What the runs came to, with rows as `EfficiencyMonitor` gives them.
    """
    timed = [result for result in results if len(_COST.keys() & result.row.keys()) > 1]  # more than the main table has
    scaled = []
    for result in timed:
        row = {key: with_spread(result.row, key, unit) for key, (_, unit) in _COST.items()}
        scaled.append(RunResult(result.label, {key: value for key, value in row.items() if value is not None}))
    text = "Latency is the median time of a fixed number of new tokens behind one prompt."
    if any("peak_rss_bytes" in result.row for result in timed):
        text += " The process's peak memory never falls: what ran before in the same process counts, too."
    return _of_rows("Cost", scaled, [(key, name) for key, (name, _) in _COST.items()], text)


TABLES: Mapping[PaperTable, Callable[[Sequence[RunResult]], ReportTable]] = MappingProxyType(
    {
        "dimensions": by_dimension,
        "counts": by_count,
        "confidence": by_confidence,
        "failures": by_failure,
        "cost": by_cost,
    }
)


def _of_rows(title: str, results: Sequence[RunResult], keys: Sequence[tuple[str, str]], text: str) -> ReportTable:
    """A row for each run that has any of the keys, a column for each key that some run has."""
    present = [(key, name) for key, name in keys if any(key in result.row for result in results)]
    rows: list[list[Scalar | None]] = [
        [result.label, *[with_spread(result.row, key) for key, _ in present]]
        for result in results
        if any(key in result.row for key, _ in present)
    ]
    return ReportTable(title, ["method", *[name for _, name in present]], rows, text)


def _points(result: RunResult) -> dict[str, Curve]:
    """Each dimension against the number of edits."""
    found = {key: _against_count(result, f"edit/{key}") for key in DIMENSIONS}
    return {key: curve for key, curve in found.items() if curve.steps}


def _against_count(result: RunResult, name: str) -> Curve:
    """A curve against the number of edits; of several values at one number the last counts."""
    counts, curve = result.curves.get("edit/count", Curve()), result.curves.get(name, Curve())
    pairs = [(counts.at(step), value) for step, value in zip(curve.steps, curve.values, strict=True)]
    at = {count: value for count, value in pairs if count is not None}
    return Curve(list(at), list(at.values()))


def _spread(results: Sequence[RunResult], label: str, key: str) -> dict[float, dict[str, Scalar]]:
    """The standard deviation of a dimension at each number of edits, where there are several seeds."""
    own = next(result for result in results if result.label == label)
    low, high = (_against_count(own, f"edit/{key}:{side}") for side in ("low", "high"))
    pairs = zip(low.steps, low.values, high.values, strict=True)
    return {count: {"x_std": (upper - lower) / 2} for count, lower, upper in pairs}


def _thinned(counts: Sequence[float]) -> list[float]:
    """At most so many columns: evenly spread ones, the first and the last among them."""
    if len(counts) <= MOST_COLUMNS:
        return list(counts)
    places = {round(place * (len(counts) - 1) / (MOST_COLUMNS - 1)) for place in range(MOST_COLUMNS)}
    return [counts[place] for place in sorted(places)]
