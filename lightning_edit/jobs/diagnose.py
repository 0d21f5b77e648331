"""`lightning-edit run diagnose`: which layers and which prior suit a model, by short trials that are undone.

Each trial edits a few requests at once, asks about them, measures how far representations move for what they are used
to, and undoes the edit; the model must be what it was, bit for bit. First stretches of layers are tried with the prior
weight of the model's preset, then other weights on the best stretch. What comes out is one page and a file of settings
for `edit_model`. A trial of few requests says little about long sequences: read it as a place to begin.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.progress import track

from lightning_edit.editors.base import ClosedFormEditor
from lightning_edit.editors.registry import editor_class, get_editor, option_names
from lightning_edit.errors import EditError
from lightning_edit.evaluation.answering import Decoding
from lightning_edit.jobs.diagnose_trial import ASKED, Trial, score_of, stretch_name
from lightning_edit.jobs.geometry_plots import Axis, Line, at_counts, draw_panels
from lightning_edit.jobs.geometry_reading import read_batches
from lightning_edit.jobs.geometry_settings import Reading
from lightning_edit.jobs.inputs import EMBEDDED, check_files, gather_moments, read_requests
from lightning_edit.jobs.stage import load_model
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.runner.results import RunResult, Scalar

KNOBS = ("prior_weight", "l2")
"""Options that say how dear a change is, in the order in which they are looked for."""


def diagnose(
    output: Path,
    model: str = EMBEDDED,
    requests: str = EMBEDDED,
    editor: str = "memit",
    options: dict[str, Any] | None = None,
    count: int = 20,
    layers: list[list[int]] | None = None,
    length: int | None = None,
    most: int = 8,
    factors: list[float] | None = None,
    corpus: str | None = None,
    statistics: str | None = None,
    tokens: int | None = None,
    reading: Reading | None = None,
    decode: Decoding = "greedy",
    dtype: str = "float32",
    device: str | None = None,
) -> list[RunResult]:
    """Try layers and prior weights on a few requests, undo every trial, and propose settings for `edit_model`.

    Args:
        output: Folder for the figure and the settings, `preset.yaml`.
        model: Hub name or folder of a causal LM with its tokenizer; "embedded" is the embedded world's model.
        requests: Request file; "embedded" for requests about the embedded world.
        editor: A closed-form editor.
        options: Its options; what is tried goes before them.
        count: Number of requests in each trial.
        layers: Stretches of layers to try; all of one length where absent.
        length: Length of these stretches; that of the model's preset where absent.
        most: Number of stretches tried at most, evenly spread.
        factors: Prior weights to try, in multiples of the preset's; 0.1, 0.3, 3 and 10 where absent.
        corpus: Text or JSONL file to take key statistics from; the embedded world's documents, or else the model's own
            text, where absent.
        statistics: Safetensors file of key statistics of this model, instead of a corpus.
        tokens: Tokens read for key statistics at most; twenty for each unit of the inner width where absent.
        reading: On what representations are read; two samples for each feature where absent.
        decode: greedy lets the model write and judges its answer; teacher_forced is cheaper and flatters.
        dtype: Precision of the weights.
        device: Where the model goes; the first GPU, or else the CPU, where absent.
    """
    known = option_names(editor_class(editor)) or []
    if "layers" not in known:
        raise EditError(
            f"editor {editor!r} has no option `layers` to try; expected a closed-form editor, such as memit"
        )
    check_files(requests, corpus, statistics)
    lm = load_model(model, dtype, device)
    wanted, notes = read_requests(requests, count)
    first = get_editor(editor, **(options or {}))
    stretches = layers or candidates(lm, length or len(first.attach(lm)), most)
    needed = sorted({layer for stretch in stretches for layer in stretch})
    moments = gather_moments(lm, requests, needed, wanted, corpus, statistics, tokens)
    how = reading or Reading(samples=2 * max(site.width for site in lm.sites))
    trial = Trial(lm, wanted, editor, dict(options or {}), moments, read_batches(lm, how, requests, wanted), decode)
    results = [
        trial.run(f"layers {stretch_name(stretch)}", {"layers": stretch})
        for stretch in track(stretches, description="layers", transient=True)
    ]
    best = max(results, key=score_of)
    by_layers = list(results)
    knob = next((name for name in KNOBS if name in known), None)
    by_weight: list[RunResult] = []
    if knob is not None:
        start = weight_of(lm, trial.editors[best.label], knob)
        for factor in track(factors or [0.1, 0.3, 3.0, 10.0], description=knob, transient=True):
            chosen = {**trial.settings[best.label], knob: start * factor}
            by_weight.append(trial.run(f"{knob} {start * factor:g}", chosen))
        results += by_weight
        trial.settings[best.label][knob] = start
        best.row[knob] = start
        by_weight.append(best)
        best = max(results, key=score_of)
    settings = {"editor": editor, "options": {**(options or {}), **trial.settings[best.label]}}
    path = write_settings(output / "preset.yaml", settings, best, len(wanted))
    results[0].files["settings for edit_model"] = path
    first_rows, last_rows = ([result.row for result in part] for part in (by_layers, by_weight))
    results[0].files["trials"] = draw_trials(output / "trials.png", first_rows, last_rows, knob)
    command = f"lightning-edit run edit_model --config {path} --model {model} --requests {requests}"
    notes += [f"{best.label} scores best, {score_of(best):.2f}; use it with: {command}"]
    results[0].notes += [*notes, "every trial was undone, and the weights were what they had been, bit for bit"]
    return results


def candidates(lm: LanguageModel, length: int, most: int) -> list[list[int]]:
    """Stretches of neighbouring layers, evenly spread over the model.

    Args:
        lm: The language model.
        length: Layers in each.
        most: How many at most.
    """
    known = [site.layer for site in lm.sites]
    if not 1 <= length <= len(known) or most < 1:
        raise EditError(f"found length={length} and most={most} for {len(known)} layers; expected at least 1 of each")
    starts = range(len(known) - length + 1)
    wanted = min(most, len(starts))
    chosen = [starts[place * (len(starts) - 1) // max(wanted - 1, 1)] for place in range(wanted)]
    return [known[start : start + length] for start in chosen]


def weight_of(lm: LanguageModel, editor: ClosedFormEditor, knob: str) -> float:
    """The prior weight that an editor works with: its own, its preset's, or a quarter of the inner width.

    Args:
        lm: The language model.
        editor: A prepared editor.
        knob: Name of the option.
    """
    own = getattr(editor, knob, None)
    found = getattr(editor.preset, knob, None) if own is None else own
    return max(site.inner for site in lm.sites) / 4 if found is None else float(found)


def write_settings(path: Path, settings: dict[str, Any], best: RunResult, count: int) -> Path:
    """Write settings as a configuration of `edit_model`, with what they rest on.

    Args:
        path: The YAML file.
        settings: Editor and options.
        best: The trial that won.
        count: Requests in it.
    """
    found = ", ".join(f"{name} {float(best.row[name]):.2f}" for name in (*ASKED, "R_median") if name in best.row)
    head = f"# Proposed by `lightning-edit run diagnose` after trials with {count} requests: {found}.\n"
    usage = f"# Use it:  lightning-edit run edit_model --config {path.name} --model MODEL --requests FILE\n"
    path.write_text(head + usage + yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return path


def draw_trials(
    path: Path, by_layers: Sequence[Mapping[str, Scalar]], by_weight: Sequence[Mapping[str, Scalar]], knob: str | None
) -> Path:
    """What was asked and measured, by stretch of layers and by prior weight.

    Args:
        path: The PNG file.
        by_layers: Rows of the trials with other layers, in their order.
        by_weight: Rows of the trials with other weights.
        knob: Name of the weight.
    """
    spots = [float(place) for place in range(len(by_layers))]
    panels = {"one stretch of layers after another": _lines(by_layers, spots)}
    ticks = {spot: str(row["layers"]) for spot, row in zip(spots, by_layers, strict=True)}
    axes = [Axis("edited layers", ticks=ticks)]
    if by_weight and knob:
        ordered = sorted(by_weight, key=lambda row: float(row[knob]))
        weights = [float(row[knob]) for row in ordered]
        panels[f"layers {ordered[0]['layers']}, other weights"] = _lines(ordered, weights)
        axes.append(at_counts(knob, weights))
    return draw_panels(path, panels, axes, Axis("share, or median $R_k$"), "Trials, all of them undone")


def _lines(rows: Sequence[Mapping[str, Scalar]], x: Sequence[float]) -> list[Line]:
    """One line for each number."""
    lines = []
    for name in ("reliability", "generalization", "locality", "R_median", "R_median_last_layer"):
        points = [(at, float(row[name])) for at, row in zip(x, rows, strict=True) if name in row]
        if points:  # a trial that failed has none
            lines.append(Line(name, [at for at, _ in points], [value for _, value in points], marks=True))
    return lines
