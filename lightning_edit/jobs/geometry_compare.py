"""`geometry_compare`: editors by what they achieve and by what they do to representations, also at equal reliability.

An editor that changes less looks kinder and may simply have edited less. So each editor plays with several strengths of
its prior, and between its settings numbers are interpolated to one reliability that all of them reach. Knows rows; how
an editor plays and is measured stands in `geometry_stage.py`.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean

from rich.progress import track

from lightning_edit.evaluation import Evaluator
from lightning_edit.evaluation.answering import Decoding
from lightning_edit.geometry.relative_change import summarise
from lightning_edit.jobs.geometry_plots import Axis, Line, draw_panels
from lightning_edit.jobs.geometry_settings import Edits, Reading
from lightning_edit.jobs.geometry_stage import GeometryStage, Played
from lightning_edit.jobs.inputs import EMBEDDED
from lightning_edit.runner.results import Curve, RunResult, Scalar

ASKED = ("reliability", "generalization", "locality", "portability")


def geometry_compare(
    output: Path,
    edits: Edits,
    counts: list[int],
    model: str = EMBEDDED,
    reading: Reading | None = None,
    edits_per_commit: int = 20,
    budget: int | None = 100,
    decode: Decoding = "greedy",
    abilities: int = 0,
    share_targets: bool = False,
    dtype: str = "float32",
    device: str | None = None,
) -> list[RunResult]:
    """Let editors make the same edits, and compare them as they are and at equal reliability.

    Args:
        output: Folder for the figure.
        edits: Who edits what. Labels that agree up to a slash (`memit/0.5`, `memit/1`) are settings of one editor.
        counts: Numbers of edits at which to measure.
        model: Hub name or folder of a causal LM; "embedded" is the embedded world's model.
        reading: Where and on what representations are read.
        edits_per_commit: Requests handed over at once, at most.
        budget: Requests that are asked about at each measurement; all where null.
        decode: greedy lets the model write and judges its answer; teacher_forced is cheaper and flatters.
        abilities: Questions asked for each ability of the embedded model at the end; 0 for none.
        share_targets: Find each target once, on the clean model, for all editors, which saves most of the time and
            leaves nothing but the solutions to compare.
        dtype: Precision of the weights.
        device: Where the model goes; the first GPU, or else the CPU, where absent.
    """
    evaluator = Evaluator(budget, paraphrases=2, locality=4, portability=2, decode=decode)
    stage = GeometryStage(model, counts[-1], edits, reading or Reading(), evaluator, dtype, device)
    stage.abilities, stage.share_targets = abilities, share_targets
    results = []
    for label in track(stage.casts, description="editing", transient=True):
        part = stage.play(label, counts, edits_per_commit)
        results.append(_result(label, part, stage.reading.aggregation))
    families: dict[str, list[RunResult]] = {}
    for result in results:
        families.setdefault(result.label.partition("/")[0], []).append(result)
    picture = draw_frontier(output / "frontier.png", families)
    level = common_reliability(families)
    if level is not None:
        results += [RunResult(f"{name} at equal reliability", at_level(rows, level)) for name, rows in families.items()]
    else:
        results[0].notes.append("no reliability is reached by settings of every editor, so none is compared at")
    results[0].files["frontier"] = picture
    return results


def common_reliability(families: Mapping[str, Sequence[RunResult]]) -> float | None:
    """The highest reliability that lies between settings of every editor; None where there is none.

    Args:
        families: Results by editor.
    """
    known = [[float(result.row["reliability"]) for result in rows] for rows in families.values()]
    level = min(max(values) for values in known)
    return level if all(min(values) <= level for values in known) else None


def at_level(results: Sequence[RunResult], level: float) -> dict[str, Scalar]:
    """Numbers of one editor at a reliability, interpolated between two neighbouring settings that enclose it.

    With more and more strength an editor may lose edits again, to the damage it does. Where it passes the level twice,
    the side of higher locality counts.

    Args:
        results: Its settings, in the order of their strength.
        level: The reliability.
    """

    def reached(result: RunResult) -> float:
        return float(result.row["reliability"])

    pairs = [sorted(pair, key=reached) for pair in pairwise(results)] or [[results[0], results[0]]]
    enclosing = [pair for pair in pairs if reached(pair[0]) <= level <= reached(pair[1])]
    below, above = max(enclosing, key=lambda pair: fmean(float(result.row.get("locality", 0.0)) for result in pair))
    wide = reached(above) - reached(below)
    share = (level - reached(below)) / wide if wide else 0.0
    row: dict[str, Scalar] = {"editor": str(below.row["editor"]), "edits": below.row["edits"]}
    for key, low in below.row.items():
        high = above.row.get(key)
        if key not in row and isinstance(low, float) and isinstance(high, float):
            row[key] = low + share * (high - low)
    return row


def _result(label: str, part: Played, aggregation: str) -> RunResult:
    """The row of the end, and curves over the number of edits."""
    result = RunResult(label, notes=list(part.notes))
    measured = [row for row in part.probe.history if row["count"] > 0]
    for row, values, scores in zip(measured, part.values, part.scores, strict=True):
        numbers = {f"edit/{name}": scores[name] for name in ASKED if name in scores}
        for key, comparison in {"R_median": "edited", "random_R_median": "random"}.items():
            rates = row["rates"][comparison]
            numbers[f"geometry/{key}"] = fmean(summarise(rates[place])["median"] for place in part.places)
        last = list(row["rates"]["edited"].values())[-1]
        numbers["geometry/R_median_last_place"] = summarise(last)["median"]
        numbers["geometry/R_q95"] = fmean(summarise(row["rates"]["edited"][place])["q95"] for place in part.places)
        numbers["geometry/null_R_max"] = max(values[f"{place}/null/R_{aggregation}_max"] for place in part.places)
        for key, value in {"edit/count": float(row["count"]), **numbers}.items():
            curve = result.curves.setdefault(key, Curve())
            curve.steps.append(row["count"])
            curve.values.append(value)
        result.row |= {"editor": label.partition("/")[0], "edits": int(row["count"])}
        result.row |= {key.partition("/")[2]: value for key, value in numbers.items()}
        result.row |= {key: value for key, value in scores.items() if key.startswith("ability/")}
    return result


SHOWN = {
    "generalization": "generalization",
    "locality": "locality",
    "R_median": "median $R_k$",
    "R_q95": "95th percentile of $R_k$",
}
"""What the figure shows over reliability."""


def draw_frontier(path: Path, families: Mapping[str, Sequence[RunResult]]) -> Path:
    """What each setting costs over what it achieves, one line an editor, from setting to setting in their order.

    Args:
        path: The PNG file.
        families: Results by editor.
    """
    panels: dict[str, list[Line]] = {}
    for key, title in SHOWN.items():
        panels[title] = [
            Line(name, [float(r.row["reliability"]) for r in rows], [float(r.row[key]) for r in rows], marks=True)
            for name, rows in families.items()
            if all(key in result.row for result in rows)
        ]
    title = "What each setting costs, over the reliability it reaches"
    return draw_panels(path, panels, Axis("reliability"), Axis(""), title, alike=False)
