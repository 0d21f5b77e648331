"""What a `GeometryMonitor` makes of its measurements: warnings, a row for a table, correlations and pictures.

Knows measurements by their number of edits, and files. Refuses to know models and loggers.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lightning_edit.geometry.correlation import Correlation
from lightning_edit.geometry.plots import draw_growth, draw_site
from lightning_edit.geometry.probe import GeometryProbe
from lightning_edit.geometry.step_metrics import AmplificationCorrelation

ASKED = ("reliability", "generalization", "locality", "portability")
"""Metrics of `EditMonitor` that rates are correlated with."""

AT_MOST = 6
"""Curves in one picture: the first measurement, the last, and some between."""


def checked(probe: GeometryProbe, values: dict[str, float]) -> dict[str, float]:
    """Say what was left out of a measurement, and when the same model read twice is not the same.

    Args:
        probe: What has measured.
        values: What it measured, and what is handed back.
    """
    if probe.skipped:
        rank_zero_warn(
            f"GeometryMonitor had no time for {', '.join(probe.skipped)} within budget_seconds={probe.seconds}. Give "
            "it more, or measure fewer layers."
        )
    known = {} if probe.reference is None else probe.reference.spectra
    dark = [name for name, found in known.items() if found.count <= found.size]
    if dark and len(probe.history) == 1:
        rank_zero_warn(
            f"GeometryMonitor has {known[dark[0]].count} samples for the {known[dark[0]].size} features of {dark[0]}; "
            "expected more: directions that they do not reach are left out. Pass more texts, or more budget_seconds."
        )
    noisy = {name: value for name, value in values.items() if name.endswith("/null/norm_max") and value > 0}
    if noisy:
        rank_zero_warn(
            f"The same model read twice gives other representations ({noisy}); expected equal bits. Changes below that "
            "size are noise of the hardware: ask for deterministic algorithms."
        )
    return values


def row(
    history: Sequence[Mapping[str, float]], aggregation: str, found: Mapping[str, Mapping[str, Correlation]]
) -> dict[str, float | int | str | bool]:
    """The last medians of R_k, means over the places, and what they correlate with.

    Args:
        history: All measurements.
        aggregation: How samples became one number.
        found: What `correlations` gave.
    """
    values: dict[str, float | int | str | bool] = {}
    for last in history[-1:]:
        for label in ("total", "edited", "random"):
            median = f"R_{aggregation}_median"
            known = [value for name, value in last.items() if name.endswith(f"/{label}/{median}")]
            values |= {f"{label}_{median}": sum(known) / len(known)} if known else {}
    main = found.get("median_mean", {})  # the paper's main specification
    return values | {f"spearman_{name}": known.rho for name, known in main.items() if math.isfinite(known.rho)}


def correlations(probe: GeometryProbe, asked: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Correlation]]:
    """Correlation of every step-level summary of R_k with every editing metric, over the steps that have both.

    Args:
        probe: What was measured.
        asked: What `EditMonitor` found, one row a measurement, with its `count`.
    """
    found = {int(row["count"]): row for row in asked}
    steps = [row for row in probe.history if row["count"] > 0 and row["count"] in found]
    names = [name for name in ASKED if steps and all(_finite(found[row["count"]].get(name)) for row in steps)]
    if not names:
        return {}
    metric = AmplificationCorrelation(names)
    for row in steps:
        metric.update(row["count"], list(row["rates"]["total"].values()), found[row["count"]])
    return metric.correlations()


def write_correlations(path: Path, found: Mapping[str, Mapping[str, Correlation]]) -> None:
    """Write correlations as JSON: by summary and metric, with p-value and number of steps; null where undefined.

    Args:
        path: The file.
        found: What `correlations` gave.
    """
    table = {
        summary: {
            name: {
                "rho": _or_null(known.rho),
                "p_value": _or_null(known.p_value),
                "steps": known.count,
                "stars": known.stars,
            }
            for name, known in by_metric.items()
        }
        for summary, by_metric in found.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(table, indent=2) + "\n")


def draw(probe: GeometryProbe, folder: Path) -> dict[str, Path]:
    """Draw every place, and the growth of all of them; files by the name of what they show.

    Args:
        probe: What was measured.
        folder: Where the PNG files go.
    """
    if probe.reference is None:
        return {}
    files = {}
    rows = {row["count"]: row for row in probe.history if row["count"] > 0}  # the later one of the same count
    shown = _some(sorted(rows))
    for name, known in probe.reference.spectra.items():
        sigma = {"unedited": known.sigma.cpu()}
        sigma |= {f"{count} edits": rows[count]["sigma"][name] for count in shown if name in rows[count]["sigma"]}
        rates = {f"{count} edits": rows[count]["rates"]["total"][name] for count in shown}
        control = rows[shown[-1]]["rates"].get("random", {}).get(name) if shown else None
        files[name] = draw_site(folder / f"{name}.png", name, sigma, rates, control)
    if len(rows) > 1:
        counts = sorted(rows)
        medians = {
            name: [float(torch.quantile(rows[count]["rates"]["total"][name], 0.5)) for count in counts]
            for name in probe.reference.spectra
        }
        files["growth"] = draw_growth(folder / "growth.png", counts, medians)
    return files


def _some(counts: list[int]) -> list[int]:
    """At most a handful, the first and the last among them."""
    if len(counts) <= AT_MOST:
        return counts
    return [counts[place * (len(counts) - 1) // (AT_MOST - 1)] for place in range(AT_MOST)]


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _or_null(value: float) -> float | None:
    return value if math.isfinite(value) else None
