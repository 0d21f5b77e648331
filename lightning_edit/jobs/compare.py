"""`compare`: several editors, the same streams of edits, every seed from the same clean model.

What the recipes of the closed-form editors have in common: requests in a number of steps, measured as they go, once for
each editor and seed, means and spread over seeds. Knows the order of these; which editors stand against each other is
said by the recipe, and how one of them plays in `stage.py`.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning_edit.bars import job_bar, show_progress
from lightning_edit.errors import EditError
from lightning_edit.evaluation.answering import Decoding
from lightning_edit.evaluation.cost import reset_peak_cuda
from lightning_edit.jobs.asking import Asking, forced_shares
from lightning_edit.jobs.asking_groups import check_groups, play_in_groups
from lightning_edit.jobs.cast import Cast, Declared
from lightning_edit.jobs.inputs import Choice, check_files, draw_stream, gather_moments
from lightning_edit.jobs.protocols import protocol_name
from lightning_edit.jobs.shared_targets import SharedTargets
from lightning_edit.jobs.stage import Stage, Table, Weights, distance, load_model
from lightning_edit.jobs.task_scores import task_scores
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.runner.results import RunResult, Scalar
from lightning_edit.runner.spread import summarise

UNEDITED = "unedited"


def compare(
    output: Path,
    editors: dict[str, dict[str, Any]],
    shared: dict[str, Any] | None = None,
    model: str = "embedded",
    requests: str = "embedded",
    count: int = 400,
    steps: int | None = None,
    seeds: list[int] | None = None,
    measurements: int | None = None,
    corpus: str | None = None,
    statistics: str | None = None,
    tokens: int | None = None,
    budget: int | None = 100,
    decode: Decoding = "greedy",
    abilities: int = 0,
    reference: str | None = None,
    dtype: str = "float32",
    choice: Choice = "random",
    shared_targets: bool = False,
    tables: list[Table] | None = None,
    unedited: bool = False,
    device: str | None = None,
    asking: Asking | None = None,
) -> list[RunResult]:
    """Let several editors make the same edits in the same steps, and measure all edits so far as they go.

    Args:
        output: Folder of the report.
        editors: Label to an editor's options; `editor` among them is its name (memit if absent), and `in_steps` the
            number of its steps, where that differs.
        shared: Options of all editors that know them.
        model: Hub name or folder of a causal LM with its tokenizer; "embedded" is the embedded world's model.
        requests: Request file; "embedded" for requests about the embedded world, drawn anew for each seed.
        count: Number of edits.
        steps: Number of steps they come in; 20 where absent.
        seeds: Seeds of the requests (embedded world) or of their order (a file); 0, 1 and 2 where absent.
        measurements: How often everything so far is measured, evenly spread, the last time at the end; 4 where absent.
        corpus: Text or JSONL file to take key statistics from; the embedded world's documents, or else the
            model's own text, where absent.
        statistics: Safetensors file of key statistics of this model, instead of a corpus.
        tokens: Tokens read for key statistics at most; twenty for each unit of the inner width where absent.
        budget: Requests that are asked about at each measurement; all where null.
        decode: greedy lets the model write and judges its answer; teacher_forced is cheaper and flatters.
        abilities: Questions asked for each ability of the embedded model at each measurement; 0 for none.
        reference: Label of the editor whose final weights the others' are compared with: `distance` is
            ||W - W_ref|| / ||W_ref - W_0||, in Frobenius norms over all edited layers.
        dtype: Precision of the weights.
        choice: random draws the requests of a file and their order from the seed; first takes the first ones in their
            order for every seed, which then only reaches sampled contexts.
        shared_targets: Whether each target is optimised once, on the clean model, and shared by all editors, as with
            the target cache of the public implementations; else each editor optimises on the model as it has edited it.
        tables: Published scores over all edits at the end: counterfact (efficacy, paraphrase, neighborhood) or zsre
            (token accuracy).
        unedited: Whether the clean model has a row, too.
        device: Where the model goes; the first GPU, or else the CPU, where absent.
        asking: How edits are asked about: chat and reasoning, judge, confidence, failure modes, latency, how many
            probes, tasks of reasoning; groups of edits, each from the clean model, instead of one sequence. What is
            measured of a sequence alone (steps, measurements, tables, abilities, tasks, a reference) cannot stand
            beside groups.
    """
    if reference is not None and reference not in editors:
        raise EditError(f"found reference={reference!r}, expected one of {', '.join(editors)}")
    if unedited and UNEDITED in editors:
        raise EditError(f"found unedited=true beside an editor labelled {UNEDITED!r}; expected another label")
    asking = asking or Asking()
    if asking.groups:
        own = [f"{label}: {options['in_steps']}" for label, options in editors.items() if "in_steps" in options]
        of_a_sequence: dict[str, object] = {
            "steps": steps,
            "in_steps": own,
            "measurements": measurements,
            "tables": tables,
        }
        of_a_sequence |= {"abilities": abilities, "reference": reference, "tasks": asking.tasks}
        check_groups(asking.groups, count, of_a_sequence)
    check_files(requests, corpus, statistics)
    lm = load_model(model, dtype, device)
    evaluator = asking.evaluator(budget, decode)
    stage = Stage(lm, evaluator, 4 if measurements is None else measurements, tables or ())
    streams = {seed: draw_stream(requests, count, seed, choice) for seed in seeds or [0, 1, 2]}
    benchmark = asking.benchmark(request for stream in streams.values() for request in stream)
    with show_progress(lm, "asking the clean model"):
        baselines = {seed: evaluator.measure_baseline(lm, stream) for seed, stream in streams.items()}
    methods = {
        label: Declared.read(options, shared or {}, 20 if steps is None else steps)
        for label, options in editors.items()
    }
    first = next(iter(streams.values()))
    moments = gather_moments(lm, requests, needed_layers(lm, methods.values()), first, corpus, statistics, tokens)
    optimizer = SharedTargets(stage.clean) if shared_targets else None

    def ask_abilities() -> dict[str, float]:
        return stage.abilities(abilities) if abilities else {}

    results = dict[str, RunResult]()
    if unedited:
        with show_progress(lm, "asking the clean model"):
            rows = [
                stage.measure(stream, stream, baselines[seed], [])
                | stage.published(stream)
                | forced_shares(asking.forced(lm, stream, evaluator))
                for seed, stream in streams.items()
            ]
            asked = ask_abilities() | task_scores(benchmark, lm)
        about: dict[str, Scalar] = {"edits": 0, "protocol": protocol_name(evaluator)}
        results[UNEDITED] = summarise(UNEDITED, [RunResult("", {**about, **row, **asked}) for row in rows])
    finals: dict[int, Weights] = {}  # of the reference, by seed
    untouched = {seed: asking.untouched(lm, stream) for seed, stream in streams.items()}
    ticks = sum(asking.ticks(count, method.steps) for method in methods.values())
    with job_bar(lm, "editing", len(streams) * ticks) as tick:
        for label in sorted(methods, key=lambda label: label != reference):  # the reference comes first
            cast, found = Cast(methods[label], lm, moments, optimizer), []
            for seed, stream in streams.items():
                reset_peak_cuda(lm.device)
                editor, folder = cast.editor(seed), output / label / f"seed-{seed}"
                who: dict[str, Scalar] = {"editor": methods[label].name, "aligned": editor.aligned}
                clean = baselines[seed], untouched[seed]
                if asking.groups:
                    played = play_in_groups(editor, lm, stream, asking, evaluator, *clean, folder, tick)
                else:
                    who["steps"] = parts = methods[label].steps
                    played = stage.play(editor, stream, parts, baselines[seed], tick, ask_abilities)
                    asking.finish(played, lm, editor, stream, evaluator, stage.outcomes, untouched[seed], folder)
                    played.row |= task_scores(benchmark, lm)
                played.row = who | played.row
                if reference is not None:
                    final = stage.weights(editor.layers)
                    played.row["distance"] = distance(final, finals.setdefault(seed, final), stage.clean)
                editor.detach(lm)
                stage.restore()
                found.append(played)
            results[label] = summarise(label, found)
    return [results[label] for label in (*([UNEDITED] if unedited else []), *methods)]


def needed_layers(lm: LanguageModel, methods: Iterable[Declared]) -> list[int]:
    """The layers whose key statistics any of some editors needs.

    Args:
        lm: The language model.
        methods: The editors.
    """
    editors = [method.build() for method in methods]
    return sorted({layer for editor in editors if editor.needs_statistics for layer in editor.attach(lm)})
