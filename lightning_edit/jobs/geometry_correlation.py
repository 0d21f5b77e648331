"""`correlation`: relative change rates against what becomes of the edits, Tables 2 and 25 to 28 of *Revisiting*.

Rates grow with the number of edits, and so does damage; anything that grows correlates with anything that falls. Two
controls say how much of a correlation that is: the number of edits itself, and the rates of random updates of the same
norms, which know nothing of any edit.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

from lightning_edit.evaluation import Evaluator
from lightning_edit.evaluation.answering import Decoding
from lightning_edit.geometry.correlation import Correlation, correlate
from lightning_edit.geometry.relative_change import summarise
from lightning_edit.geometry.step_metrics import AmplificationCorrelation
from lightning_edit.jobs.geometry_plots import Axis, Line, draw_panels
from lightning_edit.jobs.geometry_settings import Edits, Reading
from lightning_edit.jobs.geometry_stage import GeometryStage, Played
from lightning_edit.jobs.inputs import EMBEDDED
from lightning_edit.runner.results import RunResult, Scalar

ASKED = ("reliability", "generalization", "locality", "portability")


def correlation(
    output: Path,
    edits: Edits,
    counts: list[int],
    model: str = EMBEDDED,
    reading: Reading | None = None,
    edits_per_commit: int = 1,
    budget: int | None = 60,
    decode: Decoding = "greedy",
    dtype: str = "float32",
    device: str | None = None,
) -> list[RunResult]:
    """Edit in sequence, and correlate step-level summaries of the rates with reliability, locality and the rest.

    Args:
        output: Folder for the figure.
        edits: Who edits what.
        counts: Numbers of edits at which to measure: the steps that are correlated.
        model: Hub name or folder of a causal LM; "embedded" is the embedded world's model.
        reading: Where and on what representations are read; only edited layers are correlated.
        edits_per_commit: Requests handed over at once, at most.
        budget: Requests that are asked about at each measurement; all where null.
        decode: greedy lets the model write and judges its answer; teacher_forced is cheaper and flatters.
        dtype: Precision of the weights.
        device: Where the model goes; the first GPU, or else the CPU, where absent.
    """
    evaluator = Evaluator(budget, paraphrases=1, locality=3, portability=1, decode=decode)
    stage = GeometryStage(model, counts[-1], edits, reading or Reading(), evaluator, dtype, device)
    results, played = [], {}
    for label in stage.casts:
        played[label] = part = stage.play(label, counts, edits_per_commit)
        names = [name for name in ASKED if all(name in row for row in part.scores)]
        found = {f"R {summary}": known for summary, known in _rates(part, "edited", names).items()}
        found |= {f"random {summary}": known for summary, known in _rates(part, "random", names).items()}
        metrics = {name: [row[name] for row in part.scores] for name in names}
        found["number of edits"] = correlate([float(count) for count in part.counts], metrics)
        results += [RunResult(f"{label}, {name}", _row(label, name, known)) for name, known in found.items()]
        results[-1].notes += part.notes
    results[0].files["steps"] = _draw(output / "steps.png", played)
    return results


def _rates(part: Played, comparison: str, names: list[str]) -> dict[str, dict[str, Correlation]]:
    """Correlation of every summary of the edited layers' rates with every metric."""
    metric = AmplificationCorrelation(names)
    for row, scores in zip([row for row in part.probe.history if row["count"] > 0], part.scores, strict=True):
        rates = row["rates"][comparison]
        metric.update(row["count"], [rates[place] for place in part.places], scores)
    return metric.correlations()


def _row(label: str, name: str, found: Mapping[str, Correlation]) -> dict[str, Scalar]:
    """Rho by metric, with its p-value; what never changes has none."""
    row: dict[str, Scalar] = {"editor": label, "of": name}
    for metric, known in found.items():
        row["steps"] = known.count
        if math.isfinite(known.rho):
            row |= {metric: known.rho, f"{metric}/p_value": known.p_value, f"{metric}/stars": known.stars}
    return row


def _draw(path: Path, played: Mapping[str, Played]) -> Path:
    """What was asked over the mean of the layers' median rates, and over the random control's."""
    panels = {}
    for label, part in played.items():
        measured, lines = [row["rates"]["edited"] for row in part.probe.history if row["count"] > 0], []
        medians = [fmean(summarise(rates[place])["median"] for place in part.places) for rates in measured]
        for name in ASKED:
            points = [(x, scores[name]) for x, scores in zip(medians, part.scores, strict=True) if name in scores]
            lines.append(Line(name, [x for x, _ in points], [y for _, y in points], marks=True))
        panels[label] = lines
    x, y = Axis("median $R_k$, mean over edited layers", log=True), Axis("share")
    return draw_panels(path, panels, x, y, "Edits against amplification")
