"""`conflicts`: the same facts overwritten again and again, by editors that resolve contradictions and by others.

Knows how a stream of requests becomes rounds of contradicting ones, and what a round has to be asked. How an editor
deals with a contradiction is its own option, `conflicts`.
"""

import dataclasses
import random
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from lightning_edit.bars import job_bar
from lightning_edit.editors.base import ClosedFormEditor
from lightning_edit.editors.editor import Editor
from lightning_edit.errors import RequestError
from lightning_edit.evaluation import Baseline, Evaluator, say
from lightning_edit.evaluation.answering import Decoding
from lightning_edit.jobs.cast import Cast, Declared
from lightning_edit.jobs.compare import needed_layers
from lightning_edit.jobs.inputs import EMBEDDED, Choice, check_files, draw_stream, gather_moments, read_requests
from lightning_edit.jobs.protocols import protocol_name
from lightning_edit.jobs.shared_targets import SharedTargets
from lightning_edit.jobs.stage import Stage, load_model
from lightning_edit.judge import exact_match
from lightning_edit.requests import EditRequest
from lightning_edit.runner.results import Curve, RunResult
from lightning_edit.runner.spread import summarise

POOL = 500  # requests of the embedded world whose answers are drawn from


def conflicts(
    output: Path,
    editors: dict[str, dict[str, Any]],
    shared: dict[str, Any] | None = None,
    model: str = "embedded",
    requests: str = "embedded",
    facts: int = 40,
    rounds: int = 10,
    steps: int = 2,
    seeds: list[int] | None = None,
    corpus: str | None = None,
    statistics: str | None = None,
    tokens: int | None = None,
    budget: int | None = None,
    decode: Decoding = "greedy",
    dtype: str = "float32",
    choice: Choice = "random",
    shared_targets: bool = False,
    device: str | None = None,
) -> list[RunResult]:
    """Overwrite the same facts in several rounds, and ask after each what the model says now.

    `reliability` and `generalization` are about the round's own answers, `stale` is the share of facts for which the
    model gives the answer of an earlier round, and `locality` is as everywhere.

    Args:
        output: Folder of the report.
        editors: Label to an editor's options, as for `compare`.
        shared: Options of all editors.
        model: Hub name or folder of a causal LM with its tokenizer; "embedded" is the embedded world's model.
        requests: Request file; "embedded" for requests about the embedded world, drawn anew for each seed.
        facts: Number of facts.
        rounds: How often each is edited.
        steps: Number of steps a round comes in.
        seeds: Seeds, see `compare`; 0 and 1 where absent.
        corpus: As for `compare`.
        statistics: As for `compare`.
        tokens: As for `compare`.
        budget: Facts that are asked about after a round; all where null.
        decode: As for `compare`.
        dtype: Precision of the weights.
        choice: As for `compare`.
        shared_targets: As for `compare`.
        device: As for `compare`.
    """
    check_files(requests, corpus, statistics)
    lm = load_model(model, dtype, device)
    stage = Stage(lm, Evaluator(budget, paraphrases=2, locality=4, portability=0, decode=decode))
    streams = {seed: overwrites(*_facts(requests, facts, seed, choice), rounds, seed) for seed in seeds or [0, 1]}
    baselines = {seed: stage.evaluator.measure_baseline(lm, stream[0]) for seed, stream in streams.items()}
    methods = {label: Declared.read(options, shared or {}, steps) for label, options in editors.items()}
    first = next(iter(streams.values()))[0]
    moments = gather_moments(lm, requests, needed_layers(lm, methods.values()), first, corpus, statistics, tokens)
    optimizer = SharedTargets(stage.clean) if shared_targets else None
    results = []
    with job_bar(lm, "overwriting", len(methods) * len(streams) * rounds) as tick:
        for label, method in methods.items():
            cast, found = Cast(method, lm, moments, optimizer), []
            for seed, stream in streams.items():
                editor = cast.editor(seed)
                result = RunResult("", {"editor": method.name, "aligned": editor.aligned})
                result.row["protocol"] = protocol_name(stage.evaluator)
                stage.remember(editor.layers)
                for number in range(rounds):
                    _round(stage, editor, stream, number, method.steps, baselines[seed], result)
                    tick()
                if isinstance(editor, ClosedFormEditor):
                    result.row["columns"] = float(len(editor.sites[0].ledger))
                found.append(result)
                stage.restore()
            results.append(summarise(label, found))
    return results


def overwrites(
    facts: Sequence[EditRequest], pool: Sequence[EditRequest], rounds: int, seed: int
) -> list[list[EditRequest]]:
    """Rounds of requests about the same facts, each with a target of its own.

    Targets are drawn from what requests of the same relation ask for. Portability probes are left out: they belong to
    the first target.

    Args:
        facts: The requests of the first round.
        pool: Requests whose targets may be drawn.
        rounds: Number of rounds.
        seed: Seed of the draw.

    Raises:
        RequestError: A relation has too few targets.
    """
    answers: dict[str, set[str]] = {}
    for request in (*pool, *facts):
        answers.setdefault(_about(request), set()).update({request.target, request.old or request.target})
    draws = []
    for request in facts:
        rng = random.Random(f"overwrite-{seed}-{request.id}")
        others = sorted(answers[_about(request)] - {request.target, request.old, request.subject})
        if len(others) < rounds - 1:
            raise RequestError(
                f"request {request.id!r} can be overwritten {len(others)} times with answers to {_about(request)!r} "
                f"from the file; expected {rounds - 1}. Take fewer rounds, or a file with more requests a relation."
            )
        draws.append([request.target, *rng.sample(others, rounds - 1)])
    return [
        [
            dataclasses.replace(request, id=f"{request.id}-{number}", target=targets[number], portability={})
            for request, targets in zip(facts, draws, strict=True)
        ]
        for number in range(rounds)
    ]


def _about(request: EditRequest) -> str:
    """What a request asks, whoever it asks it about."""
    return request.conflict_key[1]


def _facts(source: str, count: int, seed: int, choice: Choice) -> tuple[list[EditRequest], list[EditRequest]]:
    """The first round's requests, and all requests of the source."""
    if source == EMBEDDED:
        everything = draw_stream(source, POOL, seed)
        return everything[:count], everything
    return draw_stream(source, count, seed, choice), read_requests(source, None)[0]


def _round(
    stage: Stage,
    editor: Editor,
    stream: Sequence[Sequence[EditRequest]],
    number: int,
    steps: int,
    baseline: Baseline,
    result: RunResult,
) -> None:
    """One round of edits and what is asked about it; the numbers go into the result."""
    batch, began = stream[number], time.perf_counter()
    cuts = [round(len(batch) * step / steps) for step in range(steps + 1)]
    for start, stop in pairwise(cuts):
        editor.edit(stage.lm, batch[start:stop])
    seconds = time.perf_counter() - began
    scores = stage.measure(batch, batch[cuts[-2] :], baseline, editor.layers)
    asked = stage.evaluator.draw(batch)
    said = say(stage.lm, [request.prompt for request in asked], stage.evaluator.options)
    older = {
        request.prompt: {earlier[place].target for earlier in stream[:number]} for place, request in enumerate(batch)
    }
    stale = sum(any(exact_match(said[one.prompt], text) for text in older[one.prompt]) for one in asked)
    numbers = {**scores, "stale": stale / len(asked), "seconds_per_edit": seconds / len(batch)}
    result.row |= {"rounds": number + 1, "edits": len(batch) * (number + 1), **numbers}
    for key, value in numbers.items():
        curve = result.curves.setdefault(f"edit/{key}", Curve())
        curve.steps.append(number + 1)
        curve.values.append(value)
