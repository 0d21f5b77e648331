r"""`latent_shift`: how far edits move what the model thinks of texts that they have nothing to do with.

Hidden states h at the last token of unrelated prompts, before and after each editor's edits. Labyrinth (arXiv
2605.26670) shows t-SNE pictures of them; here the picture is a projection onto principal axes that all editors share,
which keeps distances as they are, and it has numbers beside it:

$$\text{shift} = \frac{\lVert \bar h' - \bar h \rVert}{r}, \qquad
\text{displacement} = \frac{\sqrt{\tfrac1m \sum_i \lVert h'_i - h_i \rVert^2}}{r}, \qquad
r^2 = \tfrac1m \sum_i \lVert h_i - \bar h \rVert^2$$
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_edit.bars import job_bar
from lightning_edit.errors import RequestError
from lightning_edit.evaluation import Evaluator
from lightning_edit.evaluation.answering import Decoding
from lightning_edit.jobs.cast import Cast, Declared
from lightning_edit.jobs.compare import needed_layers
from lightning_edit.jobs.inputs import Choice, check_files, draw_stream, gather_moments
from lightning_edit.jobs.shared_targets import SharedTargets
from lightning_edit.jobs.stage import Stage, load_model
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.requests import EditRequest
from lightning_edit.runner.clouds import CloudPanel, draw_clouds
from lightning_edit.runner.results import RunResult
from lightning_edit.runner.spread import summarise


def latent_shift(
    output: Path,
    editors: dict[str, dict[str, Any]],
    shared: dict[str, Any] | None = None,
    model: str = "embedded",
    requests: str = "embedded",
    count: int = 400,
    steps: int = 20,
    seeds: list[int] | None = None,
    measurements: int = 4,
    prompts: int = 200,
    kind: str = "neighborhood",
    layer: int | None = None,
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
    """Let several editors make the same edits, and measure how far hidden states of unrelated prompts have gone.

    Args:
        output: Folder of the report.
        editors: Label to an editor's options, as for `compare`.
        shared: Options of all editors.
        model: Hub name or folder of a causal LM with its tokenizer; "embedded" is the embedded world's model.
        requests: Request file; "embedded" for requests about the embedded world, drawn anew for each seed.
        count: Number of edits.
        steps: Number of steps they come in.
        seeds: Seeds, see `compare`; 0, 1 and 2 where absent.
        measurements: How often it is measured, evenly spread; the last is at the end.
        prompts: How many prompts are read at most.
        kind: The kind of locality probes whose prompts are read; their subjects are never edited.
        layer: The block behind which hidden states are read; the last one where absent.
        corpus: As for `compare`.
        statistics: As for `compare`.
        tokens: As for `compare`.
        budget: Requests that are asked about at each measurement; all where null.
        decode: As for `compare`.
        dtype: Precision of the weights.
        choice: As for `compare`.
        shared_targets: As for `compare`.
        device: As for `compare`.
    """
    check_files(requests, corpus, statistics)
    lm = load_model(model, dtype, device)
    depth = lm.num_layers - 1 if layer is None else layer
    evaluator = Evaluator(budget, paraphrases=1, locality=4, portability=0, decode=decode)
    stage = Stage(lm, evaluator, measurements)
    streams = {seed: draw_stream(requests, count, seed, choice) for seed in seeds or [0, 1, 2]}
    baselines = {seed: evaluator.measure_baseline(lm, stream) for seed, stream in streams.items()}
    texts = {seed: unrelated(stream, kind, prompts) for seed, stream in streams.items()}
    before = {seed: last_states(lm, texts[seed], depth) for seed in streams}
    methods = {label: Declared.read(options, shared or {}, steps) for label, options in editors.items()}
    first = next(iter(streams))
    layers = needed_layers(lm, methods.values())
    moments = gather_moments(lm, requests, layers, streams[first], corpus, statistics, tokens)
    optimizer = SharedTargets(stage.clean) if shared_targets else None
    results, after = list[RunResult](), dict[str, Tensor]()  # states of the first seed
    with job_bar(lm, "editing", len(streams) * sum(method.steps for method in methods.values())) as tick:
        for label, method in methods.items():
            cast, found = Cast(method, lm, moments, optimizer), []
            for seed, stream in streams.items():
                editor = cast.editor(seed)

                def look(seed: int = seed) -> dict[str, float]:
                    return shifts(before[seed], last_states(lm, texts[seed], depth))

                result = stage.play(editor, stream, method.steps, baselines[seed], tick, look)
                result.row = {"editor": method.name, "aligned": editor.aligned, "steps": method.steps, **result.row}
                if seed == first:
                    after[label] = last_states(lm, texts[seed], depth)
                found.append(result)
                stage.restore()
            results.append(summarise(label, found))
    results[0].files["projection"] = draw_projection(output / "projection.png", before[first], after, results, depth)
    return results


def unrelated(stream: Sequence[EditRequest], kind: str, limit: int) -> list[str]:
    """Prompts of one kind of locality probes, each once.

    Args:
        stream: The requests.
        kind: The kind.
        limit: How many at most.
    """
    found = dict.fromkeys(probe.prompt for request in stream for probe in request.locality.get(kind, ()))
    if not found:
        kinds = sorted({name for request in stream for name in request.locality})
        raise RequestError(f"found no locality probes of kind {kind!r}; the requests have {', '.join(kinds) or 'none'}")
    return list(found)[:limit]


def last_states(lm: LanguageModel, texts: Sequence[str], layer: int) -> Tensor:
    """The residual stream behind a block at each text's last token (m, d), float64 on the CPU.

    Args:
        lm: The language model.
        texts: The texts.
        layer: The block.
    """
    return lm.read_hidden(texts, [(0, len(text)) for text in texts], [layer])[layer].double().cpu()


def shifts(before: Tensor, after: Tensor) -> dict[str, float]:
    """Shift of the centre and displacement of single states, in radii of the cloud; and the mean cosine.

    Args:
        before: States (m, d).
        after: The same texts' states afterwards (m, d).
    """
    radius = (before - before.mean(0)).square().sum(1).mean().sqrt()
    moved = after - before
    return {
        "shift": float(moved.mean(0).norm() / radius),
        "displacement": float(moved.square().sum(1).mean().sqrt() / radius),
        "cosine": float(torch.nn.functional.cosine_similarity(before, after).mean()),
    }


def principal_axes(clouds: Sequence[Tensor]) -> Tensor:
    """The two directions (d, 2) along which some clouds, taken together, are widest.

    Args:
        clouds: Matrices of states (m, d).
    """
    everything = torch.cat(list(clouds))
    _, _, right = torch.linalg.svd(everything - everything.mean(0), full_matrices=False)
    axes: Tensor = right[:2].T
    return axes


def draw_projection(
    path: Path, before: Tensor, after: dict[str, Tensor], results: Sequence[RunResult], layer: int
) -> Path:
    """Draw the states of one seed before and after every editor, on common axes.

    Args:
        path: The PNG file.
        before: States of the clean model (m, d).
        after: States by label (m, d).
        results: The editors' results, whose shift stands in the titles.
        layer: The block.
    """
    axes = principal_axes([before, *after.values()])
    middle = before.mean(0)
    panels = [
        CloudPanel(
            f"{result.label}: shift {float(result.row['shift']):.2f}",
            ((before - middle) @ axes).tolist(),
            ((after[result.label] - middle) @ axes).tolist(),
        )
        for result in results
    ]
    title = f"Unrelated prompts behind block {layer}, before and after the edits (one seed)"
    draw_clouds(path, panels, title, "first principal axis", "second principal axis")
    return path
