"""The picture of what a commit costs as a site holds more edits.

Knows rows and matplotlib's Figure.
"""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.timing import Row
from lightning_edit.runner.palette import COLOURS

FORMS = {"gram": ("o", "ledger, factor of the columns (N x N)"), "primal": ("s", "ledger, factor of C (n x n)")}


def draw_held(rows: Sequence[Row], folder: Path) -> Path | None:
    """Draw `held.png`: seconds of a commit and distance from the dense solution; None where no row is of that kind.

    Args:
        rows: Rows of any benchmarks.
        folder: Where to.
    """
    every = [row for row in rows if row.benchmark == "held"]
    if not every:
        return None
    held, kept = ([row for row in every if bool(row.details["kept"]) == left_behind] for left_behind in (False, True))
    figure = Figure(figsize=(8.5, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    at = [float(row.details["held"]) for row in held]
    left.plot(at, [row.against_seconds for row in held], color=COLOURS[1], marker="^", label="dense solve")
    for form, (marker, label) in FORMS.items():
        part = [(x, row) for x, row in zip(at, held, strict=True) if row.details["form"] == form]
        places = [x for x, _ in part]
        left.plot(places, [row.seconds for _, row in part], color=COLOURS[0], marker=marker, label=label)
        right.plot(places, [float(row.details["error"]) for _, row in part], color=COLOURS[0], marker=marker)
    label = "factor of the columns, if it were kept"
    places = [float(row.details["held"]) for row in kept]
    left.plot(
        places, [row.seconds for row in kept], color=COLOURS[0], linestyle="--", marker="o", mfc="white", label=label
    )
    right.set_ylim(1e-16, 1e-9)
    _finish(left, "seconds of a commit", float(held[0].details["half"]))
    _finish(right, "distance from the dense update, relative", float(held[0].details["half"]))
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    path = folder / "held.png"
    figure.savefig(path, dpi=130)
    return path


def _finish(axes: Axes, label: str, half: float) -> None:
    """Scales, names, and where the form changes."""
    axes.set(xscale="log", yscale="log", xlabel="edits held", ylabel=label)
    axes.axvline(half, color=COLOURS[7], linestyle=":", linewidth=1)
    axes.text(half, 0.02, " n / 2", transform=axes.get_xaxis_transform(), fontsize=8, color=COLOURS[7])
    axes.grid(alpha=0.3)
