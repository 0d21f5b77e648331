"""`stability` and `relative_change`: what a sequence of edits does to hidden representations, after *Revisiting*.

Tables 13 to 20 follow the principal subspaces, Figures 2 and 6 and Tables 21 to 24 the relative change rates. Both play
the same sequence and tell it differently. Every number of an edit has its random control beside it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_edit.geometry.relative_change import summarise
from lightning_edit.jobs.geometry_plots import Axis, Line, at_counts, draw_panels
from lightning_edit.jobs.geometry_settings import Edits, Reading
from lightning_edit.jobs.geometry_stage import GeometryStage, Played
from lightning_edit.jobs.inputs import EMBEDDED
from lightning_edit.runner.results import Curve, RunResult, Scalar


def stability(
    output: Path,
    edits: Edits,
    counts: list[int],
    model: str = EMBEDDED,
    reading: Reading | None = None,
    edits_per_commit: int = 1,
    dtype: str = "float32",
    device: str | None = None,
) -> list[RunResult]:
    """Edit in sequence, and see how far the principal subspaces turn, beside random updates of the same norms.

    Args:
        output: Folder for the figures, one for each place.
        edits: Who edits what.
        counts: Numbers of edits at which to measure.
        model: Hub name or folder of a causal LM; "embedded" is the embedded world's model.
        reading: Where and on what representations are read.
        edits_per_commit: Requests handed over at once, at most.
        dtype: Precision of the weights.
        device: Where the model goes; the first GPU, or else the CPU, where absent.
    """
    stage = GeometryStage(model, counts[-1], edits, reading or Reading(), dtype=dtype, device=device)
    played = {label: stage.play(label, counts, edits_per_commit, random_spectra=True) for label in stage.casts}
    results = []
    for label, part in played.items():
        for point in stage.points:
            for row in part.values:
                found = {key.partition("/")[2]: value for key, value in row.items() if key.startswith(f"{point.name}/")}
                kept: dict[str, Scalar] = {
                    key: value for key, value in found.items() if key.startswith(("cos_", "gap_", "random/cos_"))
                }
                kept["null_R_max"] = found[f"null/R_{stage.reading.aggregation}_max"]
                who: dict[str, Scalar] = {"editor": label, "place": point.name, "edits": int(row["count"])}
                results.append(RunResult(f"{label} {point.name} {int(row['count'])}", who | kept))
        results[-1].notes += part.notes
    rows = [result.row for result in results]
    for point in stage.points:
        results[0].files[point.name] = draw_stability(output / f"stability-{point.name}.png", point.name, rows)
    return results


def relative_change(
    output: Path,
    edits: Edits,
    counts: list[int],
    model: str = EMBEDDED,
    reading: Reading | None = None,
    edits_per_commit: int = 1,
    dtype: str = "float32",
    device: str | None = None,
) -> list[RunResult]:
    """Edit in sequence, and measure relative change rates along every direction, beside random updates.

    Args:
        output: Folder for the figures, one for each place.
        edits: Who edits what.
        counts: Numbers of edits at which to measure; the first is the paper's single edit.
        model: Hub name or folder of a causal LM; "embedded" is the embedded world's model.
        reading: Where and on what representations are read.
        edits_per_commit: Requests handed over at once, at most.
        dtype: Precision of the weights.
        device: Where the model goes; the first GPU, or else the CPU, where absent.
    """
    stage = GeometryStage(model, counts[-1], edits, reading or Reading(), dtype=dtype, device=device)
    played = {label: stage.play(label, counts, edits_per_commit) for label in stage.casts}
    results = []
    for label, part in played.items():
        for point in stage.points:
            curve = Curve()
            for values, row in zip(part.values, _measured(part), strict=True):
                rates = row["rates"]["edited"][point.name]
                kept: dict[str, Scalar] = {f"R_{key}": value for key, value in summarise(rates).items()}
                tail = len(rates) - len(rates) // 10
                kept["R_median_weakest_tenth"] = summarise(rates[tail:])["median"]
                kept["R_median_strongest_tenth"] = summarise(rates[: len(rates) - tail])["median"]
                kept["random_R_median"] = summarise(row["rates"]["random"][point.name])["median"]
                kept["null_R_max"] = values[f"{point.name}/null/R_{stage.reading.aggregation}_max"]
                for key in ("law_ratio", "growth_exponent", "coherence"):
                    if f"{point.name}/{key}" in values:
                        kept[key] = values[f"{point.name}/{key}"]
                who: dict[str, Scalar] = {"editor": label, "place": point.name, "edits": int(row["count"])}
                results.append(RunResult(f"{label} {point.name} {int(row['count'])}", who | kept))
                curve.steps.append(row["count"])
                curve.values.append(float(kept["R_median"]))
            results[-1].curves = {"R_median": curve}
        results[-1].notes += part.notes
    for point in stage.points:
        results[0].files[point.name] = _draw_rates(output / f"rates-{point.name}.png", point.name, played)
    edited = {place for part in played.values() for place in part.places}
    top = [point.name for point in stage.points if point.name in edited][-1:]
    results[0].files["growth"] = draw_growth(output / "growth.png", [result.row for result in results], *top)
    return results


def _measured(part: Played) -> list[dict[str, Any]]:
    """The probe's own record of the edits' measurements."""
    return [row for row in part.probe.history if row["count"] > 0]


def draw_stability(path: Path, place: str, rows: Sequence[Mapping[str, Scalar]]) -> Path:
    """Smallest cosine of each subspace over the number of edits; dashed under random updates.

    Args:
        path: The PNG file.
        place: The place.
        rows: Rows of the results, of any places.
    """
    own = [row for row in rows if row["place"] == place]
    panels: dict[str, list[Line]] = {}
    for editor in dict.fromkeys(str(row["editor"]) for row in own):
        mine = [row for row in own if row["editor"] == editor]
        sizes = [int(key.removeprefix("cos_min_k")) for key in mine[0] if key.startswith("cos_min_k")]
        panels[editor] = []
        for size in sizes:
            for prefix, control in (("", False), ("random/", True)):
                key = f"{prefix}cos_min_k{size}"
                points = [(float(row["edits"]), float(row[key])) for row in mine if key in row]
                name = f"random, first {size}" if control else f"first {size}"
                like = f"first {size}" if control else ""
                line = Line(name, [x for x, _ in points], [y for _, y in points], control, not control, like)
                panels[editor].append(line)
    x = at_counts("number of edits", (float(row["edits"]) for row in own))
    y = Axis("smallest cosine, first k directions")
    return draw_panels(path, panels, x, y, f"Principal subspaces at {place}", shades=True)


def _draw_rates(path: Path, place: str, played: dict[str, Played]) -> Path:
    """R_k along the directions, one line for each number of edits, as in Figures 2 and 6."""
    panels = {}
    for label, part in played.items():
        rows = _measured(part)
        lines = [_rate_line(_many(row["count"]), row["rates"]["edited"][place].tolist()) for row in rows]
        lines.append(
            _rate_line("random updates of the last norm", rows[-1]["rates"]["random"][place].tolist(), control=True)
        )
        panels[label] = lines
    x, y = Axis("direction k, by falling singular value"), Axis("relative change rate $R_k$", log=True)
    return draw_panels(path, panels, x, y, f"Relative change rates at {place}", mark=1.0, shades=True)


def _many(count: int) -> str:
    return f"{count} edit" if count == 1 else f"{count} edits"


def _rate_line(label: str, rates: Sequence[float], control: bool = False) -> Line:
    return Line(label, range(1, len(rates) + 1), rates, control)


def draw_growth(path: Path, rows: Sequence[Mapping[str, Scalar]], law_at: str = "") -> Path:
    """Median rate over the number of edits, with the linear law from the first measurement on.

    Args:
        path: The PNG file.
        rows: Rows of the results.
        law_at: The place whose first measurement the law is drawn from; no law where there is no such place.
    """
    panels: dict[str, list[Line]] = {}
    for editor in dict.fromkeys(str(row["editor"]) for row in rows):
        panels[editor] = []
        for place in dict.fromkeys(str(row["place"]) for row in rows):
            mine = [row for row in rows if row["editor"] == editor and row["place"] == place]
            counts, medians = [float(row["edits"]) for row in mine], [float(row["R_median"]) for row in mine]
            panels[editor].append(Line(place, counts, medians, marks=True))
            if place == law_at:
                law = [medians[0] * count / counts[0] for count in counts]
                panels[editor].append(Line(f"linear law from {place}", counts, law, control=True))
    x = at_counts("number of edits", (float(row["edits"]) for row in rows))
    y = Axis("median $R_k$ over the directions", log=True)
    return draw_panels(path, panels, x, y, "Growth with the number of edits", shades=True)
