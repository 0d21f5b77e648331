"""`lightning-edit run locate`: where in the model facts are recalled, by causal tracing.

Knows which facts to trace and how to sum up over them. How one fact is traced stands in `tracing`.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor

from lightning_edit.errors import RequestError
from lightning_edit.evaluation import target_probabilities
from lightning_edit.jobs.inputs import check_files, read_requests
from lightning_edit.jobs.tracing import KINDS, PLACES, Fact, Trace, read_fact, subject_scale, trace
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.module import EditableModule
from lightning_edit.requests import EditRequest
from lightning_edit.runner.heatmap import Panel, draw_heatmaps
from lightning_edit.runner.results import RunResult, Scalar

TITLES = {"hidden": "hidden state", "ffn": "FFN output", "attention": "attention output"}
"""What a panel of the figure is called."""


def locate(
    output: Path,
    model: str = "embedded",
    requests: str = "embedded",
    count: int = 50,
    noise: float = 3.0,
    samples: int = 4,
    window: int = 1,
    batch_size: int = 256,
    seed: int = 0,
    dtype: str = "float32",
) -> list[RunResult]:
    """Corrupt the subject of known facts, put single states back, and measure how much of the answer returns.

    A fact is what a request calls `old`, or its `target` where it has no `old`. Only facts that the model knows are
    traced: every token of the answer is the likeliest one. Recovery is the share of the lost probability that comes
    back, (restored - corrupted) / (clean - corrupted), each averaged over facts and noise.

    Args:
        output: Folder for the figure.
        model: Hub name or folder of a causal LM with its tokenizer; "embedded" is the embedded world's model.
        requests: Request file; "embedded" for requests about the embedded world.
        count: Number of requests to look at; those whose fact the model does not know are left out.
        noise: Standard deviation of the noise, in standard deviations of the subjects' embeddings.
        samples: Draws of the noise for each fact.
        window: Layers whose FFN or attention is put back together; deep models need several to show anything.
        batch_size: Rows in one forward.
        seed: Seed of the noise.
        dtype: Precision of the weights.
    """
    check_files(requests)
    lm = EditableModule.from_pretrained(model, dtype=dtype).language_model
    wanted, notes = read_requests(requests, count)
    facts = known_facts(lm, wanted)
    notes.append(f"{len(facts)} of {len(wanted)} facts are known to the model, and so were traced")
    scale = noise * subject_scale(lm, facts)
    traces = [
        trace(lm, fact, scale, samples, window, batch_size, seed + number)
        for number, fact in enumerate(track(facts, description="tracing", transient=True))
    ]
    results = [RunResult(kind, _row(kind, facts, traces)) for kind in KINDS]
    results[0].files["where facts are recalled"] = _draw(output, facts, traces)
    results[0].notes = notes
    return results


def known_facts(lm: LanguageModel, requests: Sequence[EditRequest]) -> list[Fact]:
    """The facts behind requests that the model knows: every token of the answer is the likeliest.

    Args:
        lm: The language model.
        requests: Requests with subjects.
    """
    answers = [request.old or request.target for request in requests]
    known = target_probabilities(lm, [request.prompt for request in requests], answers).top.tolist()
    facts = [
        read_fact(lm, *pair) for pair, knows in zip(zip(requests, answers, strict=True), known, strict=True) if knows
    ]
    if not facts:
        raise RequestError(
            f"the model knows none of the {len(requests)} facts, expected at least one; its own answers must be the "
            "likeliest tokens. Give requests whose `old` is what this model says."
        )
    return facts


def recovery(kind: str, facts: Sequence[Fact], traces: Sequence[Trace]) -> dict[str, Tensor]:
    """Share of the lost probability that comes back, by kind of token.

    Args:
        kind: What was put back, one of `KINDS`.
        facts: The traced facts.
        traces: What tracing found, in the same order.

    Returns:
        Place to (layers,); places at which no fact has a token are absent.
    """
    gained: dict[str, list[Tensor]] = {}
    lost: dict[str, list[float]] = {}
    for fact, found in zip(facts, traces, strict=True):
        places = [fact.place(position) for position in fact.positions]
        for place in set(places):
            rows = torch.tensor([index for index, other in enumerate(places) if other == place])
            gained.setdefault(place, []).append(found.restored[kind][rows].mean(0) - found.corrupted)
            lost.setdefault(place, []).append(found.clean - found.corrupted)
    return {
        place: torch.stack(gained[place]).sum(0) / max(sum(lost[place]), 1e-9) for place in PLACES if place in gained
    }


def _row(kind: str, facts: Sequence[Fact], traces: Sequence[Trace]) -> dict[str, Scalar]:
    """The row of one kind of state: where most comes back, then every place and layer."""
    shares = recovery(kind, facts, traces)
    place, layer = max(
        ((place, layer) for place, values in shares.items() for layer in range(len(values))),
        key=lambda at: float(shares[at[0]][at[1]]),
    )
    row: dict[str, Scalar] = {
        "facts": len(facts),
        "clean": sum(found.clean for found in traces) / len(traces),
        "corrupted": sum(found.corrupted for found in traces) / len(traces),
        "best_place": place,
        "best_layer": layer,
        "best_recovery": float(shares[place][layer]),
    }
    if "last_subject" in shares:
        row["last_subject_layer"] = int(shares["last_subject"].argmax())
        row["last_subject_recovery"] = float(shares["last_subject"].max())
    every = {f"{name}/layer_{index}": float(value) for name in shares for index, value in enumerate(shares[name])}
    return row | every


def _draw(output: Path, facts: Sequence[Fact], traces: Sequence[Trace]) -> Path:
    """The figure: one panel for each kind of state."""
    panels = []
    for kind in KINDS:
        shares = recovery(kind, facts, traces)
        names = [place.replace("_", " ") + " token" for place in shares]
        panels.append(Panel(TITLES[kind], names, torch.stack(list(shares.values())).tolist()))
    path = output / "locate.png"
    draw_heatmaps(path, panels, "Share of the answer's probability that comes back", "layer whose state is put back")
    return path
