"""`sensitivity`: AlphaEdit over a grid of its two settings, edit by edit and in sequence.

Table 41 of Revisiting (arXiv 2606.00570) varies L2 and finds no value that serves every model; here the line between
used and unused directions is varied too. Knows the grid and its pictures; how an editor plays stands in `stage.py`.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from lightning_edit.bars import job_bar
from lightning_edit.editors.base import ClosedFormEditor
from lightning_edit.errors import EditError, StatisticsError
from lightning_edit.evaluation import Baseline, Evaluator
from lightning_edit.evaluation.answering import Decoding
from lightning_edit.jobs.cast import Cast, Declared
from lightning_edit.jobs.compare import needed_layers
from lightning_edit.jobs.inputs import Choice, check_files, draw_stream, gather_moments
from lightning_edit.jobs.shared_targets import SharedTargets
from lightning_edit.jobs.stage import Stage, load_model
from lightning_edit.requests import EditRequest
from lightning_edit.runner.heatmap import Panel, draw_heatmaps
from lightning_edit.runner.results import RunResult
from lightning_edit.runner.spread import summarise

Rule = Literal["energy", "threshold"]

PANELS = {
    "single_reliability": "reliability, one edit at a time",
    "reliability": "reliability, in sequence",
    "locality": "locality, in sequence",
}


def sensitivity(
    output: Path,
    l2: list[float],
    nullspace: list[float],
    rule: Rule = "energy",
    options: dict[str, Any] | None = None,
    model: str = "embedded",
    requests: str = "embedded",
    count: int = 200,
    steps: int = 10,
    single: int = 20,
    seeds: list[int] | None = None,
    corpus: str | None = None,
    statistics: str | None = None,
    tokens: int | None = None,
    budget: int | None = 60,
    decode: Decoding = "greedy",
    dtype: str = "float32",
    choice: Choice = "random",
    shared_targets: bool = False,
    device: str | None = None,
) -> list[RunResult]:
    """Run AlphaEdit with every combination of L2 and null space: each edit alone, and all in sequence.

    Args:
        output: Folder of the report.
        l2: Strengths of the penalty on the update.
        nullspace: Where the null space begins.
        rule: What that number is: energy, the share of trace(M) that the null space holds, or threshold, the paper's
            absolute bound on eigenvalues of M.
        options: Further options of AlphaEdit.
        model: Hub name or folder of a causal LM with its tokenizer; "embedded" is the embedded world's model.
        requests: Request file; "embedded" for requests about the embedded world, drawn anew for each seed.
        count: Number of edits in sequence.
        steps: Number of steps they come in.
        single: How many of them are also made alone, each undone before the next.
        seeds: Seeds, see `compare`; 0 and 1 where absent.
        corpus: As for `compare`.
        statistics: As for `compare`.
        tokens: As for `compare`.
        budget: Requests that are asked about at the end; all where null.
        decode: As for `compare`.
        dtype: Precision of the weights.
        choice: As for `compare`.
        shared_targets: As for `compare`.
        device: As for `compare`.
    """
    if not l2 or not nullspace or single < 1:
        raise EditError(f"found l2={l2}, nullspace={nullspace}, single={single}; expected a grid and at least one edit")
    check_files(requests, corpus, statistics)
    lm = load_model(model, dtype, device)
    evaluator = Evaluator(budget, paraphrases=2, locality=4, portability=1, decode=decode)
    stage = Stage(lm, evaluator)
    streams = {seed: draw_stream(requests, count, seed, choice) for seed in seeds or [0, 1]}
    baselines = {seed: evaluator.measure_baseline(lm, stream) for seed, stream in streams.items()}
    alone = {seed: evaluator.measure_baseline(lm, stream[:single]) for seed, stream in streams.items()}
    grid = {
        f"l2={price:g}, {rule}={part:g}": Declared(
            "alphaedit", {**(options or {}), "l2": price, f"nullspace_{rule}": part}, steps
        )
        for part in nullspace
        for price in l2
    }
    layers = needed_layers(lm, grid.values())
    moments = gather_moments(lm, requests, layers, next(iter(streams.values())), corpus, statistics, tokens)
    optimizer = SharedTargets(stage.clean) if shared_targets else None
    results: list[RunResult] = []
    with job_bar(lm, "editing", len(grid) * len(streams)) as tick:
        for label, method in grid.items():
            cast, found = Cast(method, lm, moments, optimizer), []
            for seed, stream in streams.items():
                try:
                    result = _cell(stage, cast, seed, stream, baselines[seed], single, alone[seed])
                except StatisticsError as error:  # nothing is null, or everything is: an answer, too
                    result = RunResult("", {"edits": 0}, notes=[str(error)])
                result.row |= {"l2": method.options["l2"], rule: method.options[f"nullspace_{rule}"]}
                found.append(result)
                tick()
            results.append(summarise(label, found))
    results[0].files["grid"] = draw_grid(output / "grid.png", results, l2, nullspace, rule)
    return results


def _cell(
    stage: Stage,
    cast: Cast,
    seed: int,
    stream: Sequence[EditRequest],
    baseline: Baseline,
    single: int,
    alone: Baseline,
) -> RunResult:
    """One combination with one seed: some edits alone, then all in sequence."""
    editor = cast.editor(seed)
    assert isinstance(editor, ClosedFormEditor)
    stage.remember(editor.layers)
    found: list[Mapping[str, float]] = []
    for request in stream[:single]:
        editor.edit(stage.lm, [request])
        found.append(stage.evaluator.evaluate(stage.lm, [request], alone))
        editor.undo(stage.lm, request.id)
    prior = editor.sites[0].ledger.prior
    editor = cast.editor(seed)
    result = stage.play(editor, stream, cast.method.steps, baseline)
    stage.restore()
    for key in ("reliability", "generalization", "locality"):
        if values := [scores[key] for scores in found if key in scores]:
            result.row[f"single_{key}"] = fmean(values)
    result.row["null_share"] = prior.rank / prior.size  # of all directions, at the lowest edited layer
    return result


def draw_grid(
    path: Path, results: Sequence[RunResult], l2: Sequence[float], nullspace: Sequence[float], rule: Rule
) -> Path:
    """Heat maps over the grid.

    Args:
        path: The PNG file.
        results: One for each cell, the penalties of one null space beside each other.
        l2: The penalties.
        nullspace: The null spaces.
        rule: What these are.
    """

    def value(key: str, row: int, column: int) -> float:
        return float(results[column * len(l2) + row].row.get(key, math.nan))

    panels = [
        Panel(
            title,
            [f"L2 = {price:g}" for price in l2],
            [[value(key, row, column) for column in range(len(nullspace))] for row in range(len(l2))],
            [f"{part:g}" for part in nullspace],
        )
        for key, title in PANELS.items()
    ]
    name = "share of trace(M) in the null space" if rule == "energy" else "threshold on eigenvalues of M"
    draw_heatmaps(path, panels, "AlphaEdit over L2 and null space", name, limits=(0.0, 1.0), annotate=True)
    return path
