"""Figures of a report: curves of several runs in one picture, readable in grey and by colour-blind eyes.

Knows matplotlib's Figure, never pyplot: no window, no global state, the same picture on every machine.
"""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_edit.runner.recipe import PlotSpec
from lightning_edit.runner.results import Curve, RunResult

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
"""The palette of Okabe and Ito, darkest contrasts first."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", ":", "-.")


def draw(spec: PlotSpec, results: Sequence[RunResult], folder: Path) -> Path | None:
    """Draw one figure; None where no run logged its metric.

    Args:
        spec: What to draw.
        results: The runs, in the order of the report; a run keeps its colour in every figure.
        folder: Where the PNG goes.
    """
    metrics = [spec.metric] if isinstance(spec.metric, str) else list(spec.metric)
    figure = Figure(figsize=(7.2, 4.3), dpi=150, layout="constrained")
    axes = figure.subplots()
    drawn = 0
    for number, result in enumerate(results):
        if spec.runs is None or result.label in spec.runs:
            for index, metric in enumerate(metrics):
                style = number if len(metrics) == 1 else index
                label = result.label if len(metrics) == 1 else f"{result.label}: {metric}"
                drawn += _line(axes, align(spec.x, metric, result, results), spec.smooth, number, style, label)
                low, high = (align(spec.x, f"{metric}:{side}", result, results) for side in ("low", "high"))
                if low.values and low.steps == high.steps:  # the spread over seeds
                    colour = COLOURS[number % len(COLOURS)]
                    axes.fill_between(low.steps, low.values, high.values, color=colour, alpha=0.12, linewidth=0)
    if not drawn:
        return None
    _label(axes, spec, metrics)
    path = folder / f"{spec.name}.png"
    figure.savefig(path)
    return path


def align(x: str, metric: str, result: RunResult, results: Sequence[RunResult]) -> Curve:
    """The points of a metric against another: `steps` of the answer holds the values of `x`.

    Args:
        x: Name of the metric on the x axis, or `step`.
        metric: Name of the metric on the y axis.
        result: The run to draw.
        results: All runs; where `result` did not log `x`, the first that did lends its own at the same step.
    """
    curve = result.curves.get(metric, Curve())
    if x == "step":
        return curve
    lender = next((other.curves[x] for other in (result, *results) if x in other.curves), Curve())
    pairs = [(lender.at(step), value) for step, value in zip(curve.steps, curve.values, strict=True)]
    known = sorted(((at, value) for at, value in pairs if at is not None), key=lambda pair: pair[0])
    return Curve([at for at, _ in known], [value for _, value in known])


def _line(axes: Axes, points: Curve, smooth: int, number: int, style: int, label: str) -> int:
    """Draw one line; 0 where there is nothing to draw."""
    if not points.values:
        return 0
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    values = points.values
    if smooth > 1:
        axes.plot(points.steps, values, color=colour, alpha=0.15, linewidth=1)
        values = [_mean(values[max(0, end - smooth) : end]) for end in range(1, len(values) + 1)]
    axes.plot(
        points.steps,
        values,
        color=colour,
        linestyle=LINES[style % len(LINES)],
        linewidth=max(1.2, 2.8 - 0.4 * number),  # a line that a later run covers still shows at its edges
        marker=marker if len(values) <= 60 else None,
        markersize=4,
        label=label,
    )
    return 1


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _label(axes: Axes, spec: PlotSpec, metrics: Sequence[str]) -> None:
    """Title, axes and legend."""
    axes.set_title(spec.title or spec.name)
    axes.set_xlabel(spec.xlabel or ("optimizer step" if spec.x == "step" else spec.x))
    axes.set_ylabel(spec.ylabel or ", ".join(metrics))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    if spec.ylim is not None:
        low, high = spec.ylim
        margin = 0.02 * (high - low)  # a line at the limit stays visible
        axes.set_ylim(low - margin, high + margin)
    axes.grid(visible=True, alpha=0.3, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.figure.legend(loc="outside lower center", ncols=4, frameon=False)
