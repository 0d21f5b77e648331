"""`sequential`: the same edits in different numbers of steps, and how far the weights end from the one-time edit's.

Four ways to go: `recorded` replays the columns (K, V) that the one-time edit made, `rebuilt` reads targets on the base
and rebuilds the active set, `live` reads each target on the model as edited so far, `naive` forgets what was before.
The first two equal the one-time edit in any number of steps, the others do not. Knows these four; how editors play
stands in `stage.py`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from matplotlib.figure import Figure
from torch import Tensor

from lightning_edit.algebra import SiteLedger
from lightning_edit.bars import job_bar
from lightning_edit.editors.base import ClosedFormEditor
from lightning_edit.editors.report import EditReport
from lightning_edit.errors import EditError
from lightning_edit.evaluation import Evaluator
from lightning_edit.evaluation.answering import Decoding
from lightning_edit.jobs.cast import Cast, Declared
from lightning_edit.jobs.compare import needed_layers
from lightning_edit.jobs.inputs import Choice, check_files, draw_stream, gather_moments
from lightning_edit.jobs.stage import Plays, Stage, load_model
from lightning_edit.model.language_model import as_language_model
from lightning_edit.model.weights import write_weight
from lightning_edit.requests import EditRequest
from lightning_edit.runner.palette import COLOURS, LINES, MARKERS
from lightning_edit.runner.results import RunResult
from lightning_edit.runner.spread import summarise

Way = Literal["recorded", "rebuilt", "live", "naive"]
FLOOR = 1e-16  # what is drawn for a distance of 0
Exact = dict[int, Tensor]  # S (d, n) by layer, float64

WAYS: dict[Way, dict[str, Any]] = {
    "rebuilt": {"targets": "base"},
    "live": {"targets": "live"},
    "naive": {"targets": "live", "history": "absorbed"},
}


class Replay:
    """Hands the columns of a finished edit to fresh ledgers again, some at a time, and writes what they give.

    Args:
        editor: The editor that made the edit; its priors are used, its ledgers are not touched.
        order: A seed to shuffle the columns by.
    """

    def __init__(self, editor: ClosedFormEditor, order: int) -> None:
        self.aligned = True
        self._recorded = {site.layer: site.ledger for site in editor.sites}
        count = len(editor.sites[0].ledger)
        self._left = torch.randperm(count, generator=torch.Generator().manual_seed(order)).tolist()
        self.ledgers = {
            layer: SiteLedger(ledger.base, ledger.prior, ledger.noise) for layer, ledger in self._recorded.items()
        }

    @property
    def layers(self) -> list[int]:
        """The edited layers."""
        return list(self.ledgers)

    def edit(self, module: object, requests: Iterable[EditRequest]) -> EditReport:
        """Append as many recorded columns as there are requests.

        Args:
            module: The model that is written to.
            requests: How many; which they are does not matter.
        """
        lm, wanted = as_language_model(module), len(list(requests))
        taken, self._left = self._left[:wanted], self._left[wanted:]
        for layer, ledger in self.ledgers.items():
            recorded = self._recorded[layer]
            ledger.append([recorded.ids[place] for place in taken], recorded.keys[:, taken], recorded.values[:, taken])
            write_weight(lm.projection(layer), ledger.solution())
        return EditReport(count=wanted)


def sequential(
    output: Path,
    editor: str = "memit",
    options: dict[str, Any] | None = None,
    ways: list[Way] | None = None,
    numbers: list[int] | None = None,
    model: str = "embedded",
    requests: str = "embedded",
    count: int = 100,
    seeds: list[int] | None = None,
    corpus: str | None = None,
    statistics: str | None = None,
    tokens: int | None = None,
    budget: int | None = 60,
    decode: Decoding = "greedy",
    dtype: str = "float32",
    choice: Choice = "random",
    device: str | None = None,
) -> list[RunResult]:
    """Make the same edits in different numbers of steps, and compare weights and answers with the one-time edit.

    `distance` is ||S - S_1|| / ||S_1 - W_0||, with S the exact weight in float64 and S_1 that of the one-time edit with
    targets read on the base.

    Args:
        output: Folder of the report.
        editor: Name of a closed-form editor.
        options: Its options.
        ways: recorded, rebuilt, live, naive; all where absent.
        numbers: Numbers of steps; 1, 5, 20 and 100 where absent.
        model: Hub name or folder of a causal LM with its tokenizer; "embedded" is the embedded world's model.
        requests: Request file; "embedded" for requests about the embedded world, drawn anew for each seed.
        count: Number of edits.
        seeds: Seeds, see `compare`; 0, 1 and 2 where absent.
        corpus: As for `compare`.
        statistics: As for `compare`.
        tokens: As for `compare`.
        budget: Requests that are asked about at the end; all where null.
        decode: As for `compare`.
        dtype: Precision of the weights.
        choice: As for `compare`.
        device: As for `compare`.
    """
    chosen, parts = ways or list(get_args(Way)), numbers or [1, 5, 20, 100]
    if bad := [number for number in parts if not 1 <= number <= count]:
        raise EditError(f"found {bad[0]} steps for {count} edits; expected from 1 to as many as there are edits")
    check_files(requests, corpus, statistics)
    lm = load_model(model, dtype, device)
    stage = Stage(lm, Evaluator(budget, paraphrases=2, locality=4, portability=1, decode=decode))
    streams = {seed: draw_stream(requests, count, seed, choice) for seed in seeds or [0, 1, 2]}
    baselines = {seed: stage.evaluator.measure_baseline(lm, stream) for seed, stream in streams.items()}
    methods = {way: Declared(editor, {**(options or {}), **own}, 1) for way, own in WAYS.items()}
    layers = needed_layers(lm, methods.values())
    moments = gather_moments(lm, requests, layers, next(iter(streams.values())), corpus, statistics, tokens)
    cast = {way: Cast(method, lm, moments) for way, method in methods.items()}
    found: dict[str, list[RunResult]] = {f"{way}-{number}": [] for way in chosen for number in parts}
    with job_bar(lm, "editing", len(found) * len(streams)) as tick:
        for seed, stream in streams.items():
            one_time, reference = _one_time(cast["rebuilt"], stage, stream, seed)
            base = {site.layer: site.ledger.base.double() for site in one_time.sites}
            for way in chosen:
                for number in parts:
                    player: Plays = Replay(one_time, seed) if way == "recorded" else cast[way].editor(seed)
                    result = stage.play(player, stream, number, baselines[seed])
                    stage.restore()
                    result.row = {"way": way, "steps": number, **result.row}
                    result.row["distance"] = exact_distance(exact_weights(player), reference, base)
                    found[f"{way}-{number}"].append(result)
                    tick()
    results = [summarise(label, played) for label, played in found.items()]
    results[0].files["distances"] = draw_distances(output / "distances.png", results)
    return results


def _one_time(cast: Cast, stage: Stage, stream: Sequence[EditRequest], seed: int) -> tuple[ClosedFormEditor, Exact]:
    """The one-time edit: its editor and its exact weights; the model is clean again afterwards."""
    editor = cast.editor(seed)
    if not isinstance(editor, ClosedFormEditor):
        raise EditError(
            f"{cast.method.name} is no closed-form editor; expected one, whose edits have columns to record"
        )
    stage.remember(editor.layers)
    editor.edit(stage.lm, stream)
    stage.restore()
    return editor, exact_weights(editor)


def exact_weights(player: Plays) -> Exact:
    """The exact edited weights of an editor or a replay, in float64.

    Args:
        player: One that has edited.
    """
    if isinstance(player, Replay):
        return {layer: ledger.solution() for layer, ledger in player.ledgers.items()}
    assert isinstance(player, ClosedFormEditor)
    return {site.layer: site.ledger.solution() for site in player.sites}


def exact_distance(weights: Exact, reference: Exact, base: Exact) -> float:
    """||S - S_1|| / ||S_1 - W_0|| over all layers.

    Args:
        weights: S by layer.
        reference: S_1 by layer.
        base: W_0 by layer.
    """
    away = torch.stack([(weights[layer] - matrix).norm() for layer, matrix in reference.items()]).norm()
    return float(away / torch.stack([(matrix - base[layer]).norm() for layer, matrix in reference.items()]).norm())


def draw_distances(path: Path, results: Sequence[RunResult]) -> Path:
    """Distance from the one-time edit over the number of steps, one line for each way, on logarithmic axes.

    Args:
        path: The PNG file.
        results: Means over seeds, with `way`, `steps` and `distance` in their rows.
    """
    figure = Figure(figsize=(7.2, 4.3), dpi=150, layout="constrained")
    axes = figure.subplots()
    for number, way in enumerate(dict.fromkeys(str(result.row["way"]) for result in results)):
        rows = [result.row for result in results if result.row["way"] == way]
        steps = [float(row["steps"]) for row in rows]
        distances = [max(float(row["distance"]), FLOOR) for row in rows]
        style: dict[str, Any] = {"color": COLOURS[number], "marker": MARKERS[number], "linestyle": LINES[number]}
        axes.plot(steps, distances, label=way, **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(FLOOR / 2, 5)
    axes.set_title("How far from the one-time edit?")
    axes.set_xlabel("number of steps that the same edits come in")
    axes.set_ylabel("relative distance of the exact weights")
    axes.grid(visible=True, alpha=0.3, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path)
    return path
