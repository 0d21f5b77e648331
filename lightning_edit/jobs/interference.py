r"""`interference`: what naive sequential editing will cost on a model, before a single target is optimised.

A naive editor solves each batch alone, so what it writes for new keys shows at old ones. How much follows from keys and
prior only. With G = KᵀQK and R the residuals that keys should lose (N, any), a batch b takes

$$R \leftarrow R - G_{:b} (sI + G_{bb})^{-1} R_b,$$

and an aligned editor ends at s (sI + G)^{-1} R. Starting from R = I, the root mean square length of R's rows is the
part of what was asked for that is missed, for residuals without a common direction. Knows Gram matrices. Refuses to
know answers: how much a model forgives is for `compare` to measure.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_edit.bars import show_progress
from lightning_edit.editors.base import ClosedFormEditor
from lightning_edit.editors.contexts import resolve_contexts
from lightning_edit.editors.preparation import find_statistics
from lightning_edit.editors.reading import Reader
from lightning_edit.errors import EditError
from lightning_edit.jobs.cast import Declared
from lightning_edit.jobs.compare import needed_layers
from lightning_edit.jobs.inputs import Choice, check_files, draw_stream, gather_moments
from lightning_edit.jobs.stage import load_model
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.requests import EditRequest
from lightning_edit.runner.results import Curve, RunResult
from lightning_edit.runner.spread import summarise


def interference(
    output: Path,
    editors: dict[str, dict[str, Any]],
    shared: dict[str, Any] | None = None,
    model: str = "embedded",
    requests: str = "embedded",
    counts: list[int] | None = None,
    steps: int = 20,
    seeds: list[int] | None = None,
    corpus: str | None = None,
    statistics: str | None = None,
    tokens: int | None = None,
    dtype: str = "float32",
    choice: Choice = "random",
    device: str | None = None,
) -> list[RunResult]:
    """Read the keys of many requests, and compute what aligned and naive editors with some priors would miss.

    Args:
        output: Folder of the report.
        editors: Label to an editor's options, as for `compare`; what counts are its layers, prior and noise.
        shared: Options of all editors.
        model: Hub name or folder of a causal LM with its tokenizer; "embedded" is the embedded world's model.
        requests: Request file; "embedded" for requests about the embedded world, drawn anew for each seed.
        counts: Numbers of edits; 20, 50, 100, 200 and 400 where absent.
        steps: Number of steps that a naive editor takes for each of them.
        seeds: Seeds, see `compare`; 0, 1 and 2 where absent.
        corpus: As for `compare`.
        statistics: As for `compare`.
        tokens: As for `compare`.
        dtype: Precision of the weights.
        choice: As for `compare`.
        device: As for `compare`.
    """
    numbers = sorted(counts or [20, 50, 100, 200, 400])
    check_files(requests, corpus, statistics)
    lm = load_model(model, dtype, device)
    streams = {seed: draw_stream(requests, numbers[-1], seed, choice) for seed in seeds or [0, 1, 2]}
    methods = {label: Declared.read(options, shared or {}, steps) for label, options in editors.items()}
    layers, first = needed_layers(lm, methods.values()), next(iter(streams.values()))
    moments = gather_moments(lm, requests, layers, first, corpus, statistics, tokens)
    results, read = [], dict[tuple[Any, ...], dict[int, Tensor]]()
    for label, method in methods.items():
        editor = method.build()
        if not isinstance(editor, ClosedFormEditor):
            raise EditError(f"{label} is no closed-form editor; expected one, whose prior says what a key touches")
        mine = editor.attach(lm)
        assert editor.preset is not None  # attached
        known = find_statistics(lm, mine, moments, None, None)
        priors = {layer: editor.make_prior(known[layer], editor.preset) for layer in mine}
        noise, found = editor.make_noise(editor.preset), []
        for seed, stream in streams.items():
            same = (seed, *mine, editor.preset.contexts)  # editors that read the same texts at the same layers
            if same not in read:
                with show_progress(lm, "reading keys"):
                    read[same] = read_keys(lm, editor, stream, seed)
            keys = read[same]
            halves = {layer: prior.half(keys[layer].to(known[layer].moment.device)) for layer, prior in priors.items()}
            grams = [half.mT @ half for half in halves.values()]
            found.append(_result(grams, noise, numbers, method.steps, lm.site(mine[0]).inner))
        results.append(summarise(label, found))
    return results


def read_keys(
    lm: LanguageModel, editor: ClosedFormEditor, requests: Sequence[EditRequest], seed: int
) -> dict[int, Tensor]:
    """Keys (n, N) of requests on the model as it is, by layer.

    Args:
        lm: The language model.
        editor: An attached editor.
        requests: The requests.
        seed: Seed of contexts, where the preset samples any.
    """
    assert editor.preset is not None  # attached
    contexts = resolve_contexts(lm, editor.preset.contexts, seed)
    reading = Reader(lm, contexts, 0.5, editor.layers[-1]).follow(requests)
    return {layer: reading.keys(layer) for layer in editor.layers}


def missed(gram: Tensor, noise: float, steps: int | None) -> float:
    """The part of what is asked for that is missed in the end, root mean square over requests.

    Args:
        gram: KᵀQK (N, N).
        noise: s.
        steps: Number of steps of a naive editor; None is an aligned one, whose steps do not matter.
    """
    count = len(gram)
    rest = torch.eye(count, dtype=gram.dtype, device=gram.device)
    if steps is None:
        rest = noise * torch.linalg.solve(gram + noise * rest, rest)
    else:
        cuts = [round(count * step / steps) for step in range(steps + 1)]
        for start, stop in pairwise(cuts):
            block = gram[start:stop, start:stop] + noise * torch.eye(stop - start, dtype=gram.dtype, device=gram.device)
            rest = rest - gram[:, start:stop] @ torch.linalg.solve(block, rest[start:stop])
    return float(rest.square().sum(1).mean().sqrt())


def cosine(gram: Tensor) -> float:
    """Root mean square cosine between two keys in the prior's metric.

    Args:
        gram: KᵀQK (N, N).
    """
    length = gram.diagonal().sqrt()
    between = gram / length[:, None] / length[None, :]
    between.fill_diagonal_(0.0)
    return float((between.square().sum() / (len(gram) * (len(gram) - 1))).sqrt())


def _result(grams: Sequence[Tensor], noise: float, counts: Sequence[int], steps: int, inner: int) -> RunResult:
    """Means over layers for every number of edits; the row is about the largest."""
    result = RunResult("")
    for count in counts:
        parts = [gram[:count, :count] for gram in grams]
        pace = min(steps, count)
        values = {
            "cosine": [cosine(part) for part in parts],
            "aligned": [missed(part, noise, None) for part in parts],
            "naive": [missed(part, noise, pace) for part in parts],
            "naive_one_by_one": [missed(part, noise, count) for part in parts],
        }
        means = {key: sum(found) / len(found) for key, found in values.items()}
        for key, value in means.items():
            curve = result.curves.setdefault(f"missed/{key}", Curve())
            curve.steps.append(count)
            curve.values.append(value)
        leverage = [float(part.diagonal().median()) / (noise or 1.0) for part in parts]
        result.row = {"edits": count, "load": count / inner, "steps": pace, "leverage": min(leverage), **means}
    return result
