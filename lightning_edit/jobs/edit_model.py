"""`lightning-edit run edit_model`: edit any causal language model with any file of requests, and save it.

Plain use without training: read, prepare, edit, measure before and after, save. Knows the order of these, and leaves
each to its room.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from lightning_edit.bars import job_bar, show_progress
from lightning_edit.data.load import OnBad
from lightning_edit.data.text import read_texts
from lightning_edit.editors.easyedit import from_easyedit
from lightning_edit.editors.editor import Editor
from lightning_edit.editors.registry import get_editor
from lightning_edit.errors import EditError
from lightning_edit.evaluation import AnswerOptions, Baseline, Evaluator, say, shares, target_probabilities
from lightning_edit.evaluation.answering import Decoding
from lightning_edit.evaluation.going_on import remark_on_going_on
from lightning_edit.jobs.common_options import as_asked, fill_in
from lightning_edit.jobs.export import Export, export_edits
from lightning_edit.jobs.inputs import check_files, read_requests, sample_corpus
from lightning_edit.jobs.proposal import with_proposed_layers
from lightning_edit.jobs.protocols import protocol_name
from lightning_edit.judges.build import get_judge
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.module import EditableModule
from lightning_edit.requests import EditRequest
from lightning_edit.runner.results import RunResult, Scalar

TOKENS_PER_UNIT = 10  # tokens read for key statistics, for each unit of the inner width
EXAMPLES = 5  # answers shown in the report


def edit_model(
    output: Path,
    model: str,
    requests: str,
    editor: str = "memit",
    options: dict[str, Any] | None = None,
    editor_hparams: str | None = None,
    count: int | None = None,
    edits_per_commit: int | None = None,
    corpus: str | None = None,
    statistics: str | None = None,
    tokens: int | None = None,
    budget: int | None = 200,
    decode: Decoding = "greedy",
    on_bad: OnBad = "raise",
    dtype: str = "float32",
    seed: int = 0,
    export: Export = "merged",
    rank: int | None = None,
    answers: AnswerOptions | None = None,
    judge: str | dict[str, Any] | None = None,
) -> list[RunResult]:
    """Edit a model with a file of requests, measure it before and after, and save it for plain transformers.

    Args:
        output: Folder for the report, and for what `export` asks for.
        model: Hub name or folder of a causal LM with its tokenizer; "embedded" is the embedded world's model.
        requests: Request file in any format that `load_requests` reads; "embedded" for requests about the embedded
            world.
        editor: Name of an editor, such as memit, grace or scr, or the class path of an editor of your own.
        options: Options of the editor, such as `--options.layers=[4,5,6]`. For a model without a preset a closed-form
            editor's layers are found by causal tracing, where the model knows some of the requests' `old`.
        editor_hparams: Hyper-parameter file of EasyEdit, which names editor and options; `options` go before it.
        count: Use this many requests of the file; all where absent.
        edits_per_commit: Requests handed to the editor at once; all where absent.
        corpus: Text or JSONL file to take key statistics from. Without it and `statistics`, texts are read that
            the model itself writes from its start token on.
        statistics: Safetensors file of key statistics of this model, instead of a corpus.
        tokens: Tokens read for key statistics at most; ten for each unit of the inner width where absent.
        budget: Requests that are asked about before and after; all where null.
        decode: greedy lets the model write and judges its answer; teacher_forced is cheaper and flatters.
        on_bad: raise stops at a bad request, skip leaves it out and says so in the report.
        dtype: Precision of the weights.
        seed: Seed of the sampled corpus and of the choice of what is asked.
        export: merged writes the edited model to `model`, with the editor beside it where edits are not in the weights
            (grace, wise, scr, ike, ice, hybrid); editor always writes both, for `lightning_edit.load_edits`; adapter a
            LoRA adapter to `adapter`, which plain PEFT loads on the unedited model; delta what was added to the weights
            to `edits.safetensors`.
        rank: Rank of the adapter at most; the exact one where absent. The report says what a lower one loses.
        answers: How the model is asked: `--answers.chat true` for one that was tuned to follow instructions. Editors
            that go by the prompt, such as grace, then learn it through the chat template, too.
        judge: exact_match where absent; begins for a model that does not stop behind its answers, contains for one that
            answers in sentences; or class_path and init_args of a judge. See `docs/judges.md`.
    """
    if edits_per_commit is not None and edits_per_commit < 1:
        raise EditError(f"found edits_per_commit={edits_per_commit}, expected at least one request")
    if editor_hparams is not None:
        editor, published = from_easyedit(editor_hparams)
        options = {**published, **(options or {})}
    check_files(requests, corpus, statistics)
    wanted, notes = read_requests(requests, count, on_bad)
    how = answers or AnswerOptions()
    given = fill_in(editor, options or {}, as_asked(how))
    get_editor(editor, **given)  # refuses wrong options before anything is loaded
    evaluator = Evaluator(budget, 2, 4, 4, seed, decode, options=how, judge=get_judge(judge))
    module = EditableModule.from_pretrained(model, dtype=dtype)
    lm = module.language_model
    settled, traced = with_proposed_layers(editor, given, lm, wanted)
    method = get_editor(editor, **settled)
    method.attach(lm)  # refuses what does not fit the model before it is asked anything
    method.detach(lm)
    notes += [traced] if traced else []
    with show_progress(lm, "asking the unedited model"):
        baseline = evaluator.measure_baseline(lm, wanted)
        before = RunResult("before", measure(lm, wanted, evaluator, baseline)[0])
        said = say(lm, [request.prompt for request in wanted[:EXAMPLES]], how)
    with show_progress(lm, "reading keys (tokens)"):
        notes.append(_prepare(method, lm, wanted, corpus, statistics, tokens, seed))
    seconds = commit(method, lm, wanted, edits_per_commit, notes)
    after = RunResult("after", {"editor": editor, "aligned": method.aligned, "edits": len(method.requests)})
    with show_progress(lm, "asking the edited model"):
        found, on_answers = measure(lm, wanted, evaluator, baseline)
        after.row |= found | {"seconds_per_edit": seconds / len(wanted)}
    after.files, remarks = export_edits(method, module, output, export, rank)
    for remark in remarks:
        Console().print(remark, highlight=False, soft_wrap=True, markup=False)
    examples = _examples(lm, wanted[:EXAMPLES], said, how)
    where = [f"layers {method.layers} were edited"] if method.layers else []
    after.notes = [*where, *notes, *on_answers, *remarks, *examples]
    return [before, after]


def measure(
    lm: LanguageModel, requests: Sequence[EditRequest], evaluator: Evaluator, baseline: Baseline
) -> tuple[dict[str, Scalar], list[str]]:
    """Shares of right answers, how often the target is likelier than what the request calls `old`, and remarks.

    Args:
        lm: The language model.
        requests: All requests.
        evaluator: What is asked.
        baseline: What the unedited model answered.
    """
    outcomes = evaluator.ask(lm, requests, baseline)
    row: dict[str, Scalar] = {**shares(outcomes), "protocol": protocol_name(evaluator)}
    rivals = [request for request in requests if request.old]
    if rivals:
        prompts = [request.prompt for request in rivals]
        new = target_probabilities(lm, prompts, [request.target for request in rivals])
        old = target_probabilities(lm, prompts, [request.old or "" for request in rivals])
        row["target_likelier_than_old"] = float((new.mean > old.mean).double().mean())
    remark = remark_on_going_on(outcomes)
    return row, [remark] if remark else []


def commit(
    editor: Editor,
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    edits_per_commit: int | None,
    notes: list[str],
) -> float:
    """Hand the requests over, batch by batch; the seconds it took.

    Args:
        editor: A prepared editor.
        lm: The language model.
        requests: All requests.
        edits_per_commit: Requests in one batch; all at once where None.
        notes: Where the editor's remarks go.
    """
    size = edits_per_commit or len(requests)
    seconds = 0.0
    starts = range(0, len(requests), size)
    with job_bar(lm, "editing", len(starts)) as tick:
        for start in starts:
            report = editor.edit(lm, requests[start : start + size])
            seconds += report.seconds["total"]
            notes += report.notes
            tick()
    return seconds


def _prepare(
    editor: Editor,
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    corpus: str | None,
    statistics: str | None,
    tokens: int | None,
    seed: int,
) -> str:
    """Give the editor its key statistics; where they came from."""
    if not editor.needs_statistics:
        editor.prepare(lm, corpus=None if corpus is None else read_texts(corpus))
        return "no key statistics were needed"
    if statistics is not None:
        editor.prepare(lm, statistics=statistics)
        return f"key statistics from {statistics}"
    limit = tokens or TOKENS_PER_UNIT * max(site.inner for site in lm.sites)
    if corpus is not None:
        texts, origin = read_texts(corpus), corpus
    else:
        texts, origin = (
            sample_corpus(lm, requests, limit, seed),
            "what the model itself wrote",
        )
    editor.prepare(lm, corpus=texts, max_tokens=limit)
    return f"key statistics from at most {limit} tokens of {origin}"


def _examples(
    lm: LanguageModel, requests: Sequence[EditRequest], before: dict[str, str], how: AnswerOptions
) -> list[str]:
    """What the model said and says to the first prompts."""
    after = say(lm, list(before), how)
    answers = [(request, before[request.prompt], after[request.prompt]) for request in requests]
    return [f'"{one.prompt}": "{old}" became "{new}"; wanted was "{one.target}"' for one, old, new in answers]
