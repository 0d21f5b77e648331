"""Figures of the geometry jobs: panels of curves side by side, one y axis.

Knows matplotlib's Figure, never pyplot, and lines. Refuses to know what is measured.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from lightning_edit.runner.palette import colour, marker

GREY = "#7F7F7F"


@dataclass(frozen=True)
class Line:
    """One curve.

    Args:
        label: Its name; lines of one name in several panels share a colour.
        x: Where.
        y: What; values that a logarithmic axis cannot show are left out.
        control: Whether it is a control: dashed, and grey where it is like no other line.
        marks: Whether points are marked.
        like: Label of the line whose colour a control has.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    control: bool = False
    marks: bool = False
    like: str = ""


@dataclass(frozen=True)
class Axis:
    """How an axis looks.

    Args:
        label: Its label.
        log: Whether it is logarithmic.
        ticks: Where ticks are, with their labels; matplotlib's own where None.
    """

    label: str
    log: bool = False
    ticks: Mapping[float, str] | None = None


def draw_panels(
    path: Path,
    panels: Mapping[str, Sequence[Line]],
    x: Axis | Sequence[Axis],
    y: Axis,
    title: str = "",
    mark: float | None = None,
    shades: bool = False,
    alike: bool = True,
) -> Path:
    """Draw panels side by side.

    Args:
        path: The PNG file.
        panels: Lines by the title of their panel.
        x: The x axis of every panel, or one for each.
        y: The y axis.
        title: Title of the figure.
        mark: A value of y to mark by a dashed line.
        shades: Colours from light to dark, for labels that have an order, instead of distinct ones.
        alike: Whether all panels have the y axis of the first; where not, their titles say what they show.
    """
    figure = Figure(figsize=(1.2 + 3.6 * len(panels), 4.0), dpi=110, layout="constrained")
    if title:
        figure.suptitle(title)
    labels = list(dict.fromkeys(line.label for lines in panels.values() for line in lines if not line.control))
    handles = {}
    below = [x] * len(panels) if isinstance(x, Axis) else x
    drawn = figure.subplots(1, len(panels), sharey=alike, squeeze=False)[0]
    for axes, along, (name, lines) in zip(drawn, below, panels.items(), strict=True):
        for line in lines:
            points = [
                (a, b) for a, b in zip(line.x, line.y, strict=True) if (a > 0 or not along.log) and (b > 0 or not y.log)
            ]
            if points:
                place = labels.index(line.like or line.label) if line.like or not line.control else None
                handles[line.label], *_ = axes.plot(
                    *zip(*points, strict=True),
                    color=GREY if place is None else _colour(place, len(labels), shades),
                    linestyle="--" if line.control else "-",
                    linewidth=1.0 if line.control else 1.4,
                    marker=marker(place or 0) if line.marks else None,
                    markersize=4,
                )
        axes.set_title(name, fontsize="medium")
        axes.set_xlabel(along.label)
        axes.set_xscale("log" if along.log else "linear")
        axes.set_yscale("log" if y.log else "linear")
        if along.ticks is not None:
            slope = 30 if sum(map(len, along.ticks.values())) > 30 else 0  # long names would run into each other
            axes.set_xticks(list(along.ticks), list(along.ticks.values()), rotation=slope)
            axes.set_xticks([], minor=True)
        if mark is not None:
            axes.axhline(mark, color="#000000", linestyle=":", linewidth=0.9)
        axes.grid(visible=True, alpha=0.3, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel(y.label)
    dashed = {line.label for lines in panels.values() for line in lines if line.control}
    named = sorted(handles, key=lambda label: label in dashed)  # controls last
    width = max(map(len, named), default=0) + 8  # the line before a label and the gap behind
    columns = max(1, min(len(named), int(13 * figure.get_figwidth()) // width))
    figure.legend([handles[n] for n in named], named, loc="outside lower center", ncols=columns, frameon=False)
    figure.savefig(path)
    return path


def at_counts(label: str, counts: Iterable[float]) -> Axis:
    """A logarithmic axis of numbers of edits, with a tick at each number that was measured.

    Args:
        label: Its label.
        counts: The numbers.
    """
    return Axis(label, log=True, ticks={count: f"{count:g}" for count in sorted({*counts})})


def _colour(place: int, of: int, shades: bool) -> object:
    """A distinct colour, or a shade of a map that reads in grey and to colour-blind eyes."""
    if not shades:
        return colour(place)
    from matplotlib import colormaps

    return colormaps["cividis"](0.85 - 0.85 * place / max(of - 1, 1))
