"""A row of heat maps with one set of rows: numbers by place and layer.

Knows matplotlib's Figure and a colour map that reads in grey and to colour-blind eyes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


@dataclass(frozen=True)
class Panel:
    """One heat map.

    Args:
        title: What it shows.
        rows: Names of the rows, from the top.
        values: One list of numbers for each row.
    """

    title: str
    rows: Sequence[str]
    values: Sequence[Sequence[float]]


def draw_heatmaps(path: Path, panels: Sequence[Panel], title: str, xlabel: str) -> None:
    """Draw panels side by side, each with its own scale.

    Args:
        path: The PNG file.
        panels: The heat maps; all have the same rows.
        title: Title of the figure.
        xlabel: Label of the x axis of every panel.
    """
    figure = Figure(figsize=(1.6 + 3.6 * len(panels), 1.6 + 0.42 * len(panels[0].rows)), dpi=150, layout="constrained")
    figure.suptitle(title)
    for axes, panel in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
        low = min(0.0, min(map(min, panel.values)))
        image = axes.imshow(panel.values, aspect="auto", cmap="cividis", vmin=low, interpolation="nearest")
        axes.set_title(panel.title)
        axes.set_xlabel(xlabel)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
        axes.set_yticks(range(len(panel.rows)), panel.rows)
        figure.colorbar(image, ax=axes, shrink=0.9)
    figure.savefig(path)
