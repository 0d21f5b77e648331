"""`perturbation`: what single edits do to hidden representations, Tables 9 to 12 and 21 to 24 of *Revisiting*.

Each request is edited alone, from the clean model. Norms alone have no scale, so their share of the representations'
own norm stands beside them, and so does the error of the first order, which is what Assumption 4.2 is about.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning_edit.geometry.spectrum import Spectrum
from lightning_edit.jobs.geometry_plots import Axis, Line, draw_panels
from lightning_edit.jobs.geometry_settings import Edits, Reading
from lightning_edit.jobs.geometry_stage import GeometryStage, Row
from lightning_edit.jobs.inputs import EMBEDDED
from lightning_edit.runner.results import RunResult, Scalar


def perturbation(
    output: Path,
    edits: Edits,
    model: str = EMBEDDED,
    reading: Reading | None = None,
    count: int = 3,
    dtype: str = "float32",
    device: str | None = None,
) -> list[RunResult]:
    """Make edits one at a time, each from the clean model, and measure what each changes.

    Args:
        output: Folder for the figure.
        edits: Who edits what.
        model: Hub name or folder of a causal LM; "embedded" is the embedded world's model.
        reading: Where and on what representations are read.
        count: Number of requests, each edited alone; the paper has one.
        dtype: Precision of the weights.
        device: Where the model goes; the first GPU, or else the CPU, where absent.
    """
    stage = GeometryStage(model, count, edits, reading or Reading(), dtype=dtype, device=device)
    stream, results = stage.stream, []
    for label in stage.casts:
        singles = []
        for request in stream:
            stage.stream = [request]
            singles.append(stage.play(label, [1]))
        reference = singles[0].probe.reference
        assert reference is not None  # loaded
        for name, known in reference.spectra.items():
            rows = [single.values[0] for single in singles]
            row: dict[str, Scalar] = {"editor": label, "place": name, "edits": len(rows), **_norms(rows, name, known)}
            row |= _rates(rows, name, stage.reading.aggregation)
            results.append(RunResult(f"{label} {name}", row))
        later = [key for key in singles[0].values[0] if key.endswith("/edited/first_order_error")]
        later = [
            key for key in later if "_" in key.partition("/")[0] and key.partition("/")[0] not in reference.spectra
        ]
        for key in later:
            errors = [single.values[0][key] for single in singles if key in single.values[0]]
            place = key.partition("/")[0]
            row = {"editor": label, "place": place, "edits": len(errors), "first_order_error": _mean(errors)}
            results.append(RunResult(f"{label} {place}", row))
    results[0].files["norms"] = draw_norms(output / "norms.png", [result.row for result in results])
    return results


def _norms(rows: Sequence[Row], place: str, known: Spectrum) -> dict[str, Scalar]:
    """Norms over all edits, their share of the representations' own, the controls, and the first order."""
    scale = math.sqrt(float((known.sigma**2).sum()) / known.count + float(known.mean @ known.mean))

    def collected(label: str, what: str) -> list[float]:
        return [row[f"{place}/{label}/{what}"] for row in rows if f"{place}/{label}/{what}" in row]

    values: dict[str, Scalar] = {
        "norm_mean": _mean(collected("edited", "norm_mean")),
        "norm_std": _mean(collected("edited", "norm_std")),
        "norm_min": min(collected("edited", "norm_min")),
        "norm_max": max(collected("edited", "norm_max")),
        "random_norm_mean": _mean(collected("random", "norm_mean")),
        "null_norm_max": max(collected("null", "norm_max")),
    }
    values["norm_share"] = float(values["norm_mean"]) / scale
    for what in ("error", "cosine"):
        if known_errors := collected("edited", f"first_order_{what}"):
            values[f"first_order_{what}"] = _mean(known_errors)
    return values


def _rates(rows: Sequence[Row], place: str, aggregation: str) -> dict[str, Scalar]:
    """Rates, means over all edits."""
    names = {label: ("median", "mean", "max", "share_above_1") for label in ("edited", "random")}
    values: dict[str, Scalar] = {}
    for label, wanted in names.items():
        for what in wanted:
            known = [row.get(f"{place}/{label}/R_{aggregation}_{what}") for row in rows]
            found = [value for value in known if value is not None]
            if found:
                values[f"R_{what}" if label == "edited" else f"random_R_{what}"] = _mean(found)
    values["null_R_max"] = max(row[f"{place}/null/R_{aggregation}_max"] for row in rows)
    return values


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def draw_norms(path: Path, rows: Sequence[Mapping[str, Scalar]]) -> Path:
    """Norms by place, one line an editor, beside those of random updates.

    Args:
        path: The PNG file.
        rows: Rows of the results.
    """
    known = [row for row in rows if "norm_share" in row]
    places = list(dict.fromkeys(str(row["place"]) for row in known))
    panels: dict[str, list[Line]] = {}
    for title, key in (("edits", "norm_mean"), ("random updates of the same norm", "random_norm_mean")):
        panels[title] = []
        for editor in dict.fromkeys(str(row["editor"]) for row in known):
            mine = [row for row in known if row["editor"] == editor]
            spots = [float(places.index(str(row["place"]))) for row in mine]
            panels[title].append(Line(editor, spots, [float(row[key]) for row in mine], marks=True))
    x = Axis("place, from below", ticks={float(spot): name for spot, name in enumerate(places)})
    y = Axis("mean of $\\Vert\\Delta h\\Vert$ over the tokens", log=True)
    return draw_panels(path, panels, x, y, "What one edit moves")
