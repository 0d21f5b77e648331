"""Means and spread of the same run over several seeds.

Knows rows and curves. Refuses to know what was run.
"""

import statistics
from collections.abc import Sequence

from lightning_edit.runner.results import Curve, RunResult, Scalar

ONE_SEED = "one seed, so no spread: --seeds 0,1,2 plays it from each of these, each in a folder of its own"
"""What a job that takes one seed says of its rows; it is left out where rows of several seeds are summed up."""


def summarise(label: str, results: Sequence[RunResult]) -> RunResult:
    """One result for all seeds: means in the row and in the curves, sample standard deviations beside them.

    A number `x` is joined by `x_std` where there is more than one seed; a curve `x` by `x:low` and `x:high`, one
    standard deviation below and above. What is no number is taken from the first seed, further tables among it; a
    remark that all seeds make is made once.

    Args:
        label: Name of the run.
        results: The same run, one for each seed; of a curve those steps count at which all were measured.
    """
    first = results[0]
    merged = RunResult(label, {**first.row, "seeds": len(results)}, {}, dict(first.files))
    merged.notes = list(dict.fromkeys(note for result in results for note in result.notes))
    merged.tables = list(first.tables)
    for key, value in first.row.items():
        if not _is_number(value) or not all(key in result.row for result in results):
            continue
        values = [float(result.row[key]) for result in results]
        if len(set(values)) > 1 or isinstance(value, float):
            merged.row[key] = statistics.fmean(values)
            if len(values) > 1:
                merged.row[f"{key}_std"] = statistics.stdev(values)
    for name in first.curves:
        curves = [result.curves[name] for result in results if name in result.curves]
        merged.curves |= _band(name, curves)
    return merged


def _band(name: str, curves: Sequence[Curve]) -> dict[str, Curve]:
    """The mean of curves with equal steps, and one standard deviation to either side."""
    steps, columns = _together(curves)
    means = [statistics.fmean(column) for column in columns]
    if len(curves) < 2:
        return {name: Curve(list(steps), means)}
    spread = [statistics.stdev(column) for column in columns]
    low = [mean - wide for mean, wide in zip(means, spread, strict=True)]
    high = [mean + wide for mean, wide in zip(means, spread, strict=True)]
    return {
        name: Curve(list(steps), means),
        f"{name}:low": Curve(list(steps), low),
        f"{name}:high": Curve(list(steps), high),
    }


def _together(curves: Sequence[Curve]) -> tuple[list[float], list[tuple[float, ...]]]:
    """Values of all curves at the steps that all of them have; a run that ended early has fewer."""
    if all(curve.steps == curves[0].steps for curve in curves):
        return list(curves[0].steps), list(zip(*(curve.values for curve in curves), strict=True))
    known = [dict(zip(curve.steps, curve.values, strict=True)) for curve in curves]
    steps = [step for step in known[0] if all(step in own for own in known)]
    return steps, [tuple(own[step] for own in known) for step in steps]


def _is_number(value: Scalar) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
