"""Figures made of the rows of a report: bars by metric, and one quantity against another with a point for each run.

Knows rows, and standard deviations beside their means (`<key>_std`). Curves are drawn in `plots.py`.
"""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from lightning_edit.runner.cells import number
from lightning_edit.runner.palette import add_legend, colour, hatch, marker
from lightning_edit.runner.recipe import PlotSpec
from lightning_edit.runner.results import RunResult

MOST_NUMBERS = 28  # bars that still have room for their numbers


def draw_bars(spec: PlotSpec, results: Sequence[tuple[int, RunResult]], folder: Path) -> Path | None:
    """A group for each metric, a bar for each run; None where no run has any of the metrics.

    Args:
        spec: What to draw.
        results: The runs with their places among all runs.
        folder: Where the PNG goes.
    """
    wanted = [spec.metric] if isinstance(spec.metric, str) else list(spec.metric)
    metrics = [key for key in wanted if any(number(result.row, key) is not None for _, result in results)]
    shown = [(place, one) for place, one in results if any(number(one.row, key) is not None for key in metrics)]
    if not metrics:
        return None
    figure = Figure(figsize=(max(7.2, 0.9 * len(metrics) + 0.22 * len(metrics) * len(shown)), 4.3), dpi=150)
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    width = 0.82 / len(shown)
    for index, (place, result) in enumerate(shown):
        known = [(group, key) for group, key in enumerate(metrics) if number(result.row, key) is not None]
        heights = [number(result.row, key) or 0.0 for _, key in known]
        spread = [number(result.row, f"{key}_std") or 0.0 for _, key in known]
        bars = axes.bar(
            [group + (index - (len(shown) - 1) / 2) * width for group, _ in known],
            heights,
            0.92 * width,
            yerr=spread if any(spread) else None,
            color=colour(place),
            edgecolor="white",
            hatch=hatch(place),
            linewidth=0,
            error_kw={"elinewidth": 1, "capsize": 2, "ecolor": "#333333"},
            label=result.label,
        )
        if len(metrics) * len(shown) <= MOST_NUMBERS and not any(spread):
            axes.bar_label(bars, fmt=lambda value: f"{value:.2f}", fontsize=7, padding=2)
    axes.set_xticks(range(len(metrics)), [short(key) for key in metrics])
    axes.tick_params(axis="x", length=0)
    _finish(axes, spec, ylabel="share" if not spec.ylabel else spec.ylabel)
    axes.grid(visible=True, axis="y", alpha=0.3, linewidth=0.6)
    add_legend(figure, [result.label for _, result in shown])
    return _save(figure, spec, folder)


def draw_tradeoff(spec: PlotSpec, results: Sequence[tuple[int, RunResult]], folder: Path) -> Path | None:
    """A point for each run, with its standard deviations as bars; None where no run has both numbers.

    Args:
        spec: What to draw.
        results: The runs with their places among all runs.
        folder: Where the PNG goes.
    """
    metric = str(spec.metric)
    figure = Figure(figsize=(7.2, 4.6), dpi=150, layout="constrained")
    axes = figure.subplots()
    labels = []
    for place, result in results:
        x, y = number(result.row, spec.x), number(result.row, metric)
        if x is None or y is None:
            continue
        labels.append(result.label)
        axes.errorbar(
            x,
            y,
            xerr=number(result.row, f"{spec.x}_std"),
            yerr=number(result.row, f"{metric}_std"),
            color=colour(place),
            marker=marker(place),
            markersize=9,
            markeredgecolor="white",
            linestyle="none",
            elinewidth=1,
            capsize=2,
            label=result.label,
        )
    if not labels:
        return None
    axes.margins(0.12)
    set_scale(axes, spec)
    axes.set_xlabel(spec.xlabel or short(spec.x))
    _finish(axes, spec, ylabel=spec.ylabel or short(metric))
    axes.grid(visible=True, alpha=0.3, linewidth=0.6)
    add_legend(figure, labels)
    return _save(figure, spec, folder)


def short(key: str) -> str:
    """A metric's name on an axis.

    Args:
        key: Its key.

    Example:
        >>> short("edit/reliability_high_logp"), short("seconds_per_edit")
        ('reliability high logp', 'seconds per edit')
    """
    return key.removeprefix("edit/").replace("_", " ")


def set_scale(axes: Axes, spec: PlotSpec) -> None:
    """A linear or logarithmic x axis, with plain numbers on it: 1, 2, 5, 10, ... where these have room.

    Args:
        axes: The picture, everything drawn.
        spec: What is drawn.
    """
    if spec.xscale == "log":
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high <= 3_000 * low else (1,)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())


def _finish(axes: Axes, spec: PlotSpec, ylabel: str) -> None:
    """Title, label, limits and frame."""
    axes.set_title(spec.title or spec.name)
    axes.set_ylabel(ylabel)
    axes.set_axisbelow(True)
    if spec.ylim is not None:
        low, high = spec.ylim
        axes.set_ylim(low, high + 0.05 * (high - low))  # room for numbers and error bars
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, spec: PlotSpec, folder: Path) -> Path:
    path = folder / f"{spec.name}.png"
    figure.savefig(path)
    return path
