"""Figures of the geometry: spectra, relative change rates along them, and their growth with the number of edits.

Knows matplotlib's Figure, never pyplot, and curves by their label. Refuses to know models.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

EDGE = "#000000"
CONTROL = "#7F7F7F"


def draw_site(
    path: Path, title: str, sigma: Mapping[str, Tensor], rates: Mapping[str, Tensor], control: Tensor | None = None
) -> Path:
    """Spectra and rates of one place in one figure, as in Fig. 2 and 6 of *Revisiting*.

    Args:
        path: The PNG file.
        title: Name of the place.
        sigma: Singular values by label, the reference first.
        rates: R_k by label, in the order of the singular values.
        control: R_k of the random control.
    """
    figure = Figure(figsize=(10.4, 4.3), dpi=150, layout="constrained")
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    _curves(left, sigma, "singular value index k", "$\\sigma_k$")
    if control is not None:
        right.plot(range(1, len(control) + 1), control.tolist(), color=CONTROL, linewidth=0.8, label="random control")
    _curves(right, rates, "singular value index k", "$R_k$")
    right.axhline(1.0, color=EDGE, linestyle="--", linewidth=0.8)
    for axes in (left, right):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize="small")
    return _saved(figure, path)


def draw_growth(path: Path, counts: Sequence[int], medians: Mapping[str, Sequence[float]]) -> Path:
    """Median rate of each place over the number of edits, beside the linear law.

    Args:
        path: The PNG file.
        counts: Numbers of edits, ascending, positive.
        medians: Median R_k at each of them, by place.
    """
    figure = Figure(figsize=(6.4, 4.3), dpi=150, layout="constrained")
    axes = figure.subplots()
    for place, (name, values) in enumerate(medians.items()):
        colour = _colour(place, len(medians))
        axes.plot(counts, values, color=colour, marker="o", markersize=4, label=name)
        law = [values[0] * count / counts[0] for count in counts]
        axes.plot(counts, law, color=colour, linestyle=":", linewidth=0.9)
    axes.set(xscale="log", xlabel="edits", ylabel="median $R_k$ (dotted: linear law)")
    if any(value > 0 for values in medians.values() for value in values):
        axes.set_yscale("log")
    axes.grid(visible=True, alpha=0.3, linewidth=0.6)
    axes.legend(frameon=False, fontsize="small")
    return _saved(figure, path)


def _curves(axes: Axes, curves: Mapping[str, Tensor], xlabel: str, ylabel: str) -> None:
    """Lines from light to dark, what is not positive left out of the logarithmic axis."""
    for place, (label, values) in enumerate(curves.items()):
        known = [(k, value) for k, value in enumerate(values.tolist(), 1) if value > 0]
        if known:
            axes.plot(*zip(*known, strict=True), color=_colour(place, len(curves)), linewidth=1.2, label=label)
            axes.set_yscale("log")
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(visible=True, alpha=0.3, linewidth=0.6)


def _colour(place: int, of: int) -> tuple[float, float, float, float]:
    """A shade of a colour map that reads in grey and to colour-blind eyes."""
    from matplotlib import colormaps

    return colormaps["cividis"](0.85 - 0.85 * place / max(of - 1, 1))


def _saved(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
