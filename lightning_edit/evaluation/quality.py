"""How good the edits are, in numbers: ask everything there is to ask about some requests, and count.

Knows how questions, answers and shares fit together. Refuses to know which requests a long stream can afford to ask
about (`evaluator.py`).
"""

from collections.abc import Iterable, Sequence

from lightning_edit.evaluation.answering import AnswerOptions, Decoding, Outcome, answerer
from lightning_edit.evaluation.baseline import Baseline
from lightning_edit.evaluation.protocol import Protocol, Scores
from lightning_edit.evaluation.questions import DIMENSIONS, make_questions
from lightning_edit.judges.base import Judge
from lightning_edit.model.language_model import as_language_model
from lightning_edit.requests import EditRequest


def evaluate(
    module: object,
    requests: Iterable[EditRequest],
    baseline: Baseline | None = None,
    decode: Decoding = "greedy",
    by_kind: bool = False,
    options: AnswerOptions | None = None,
    judge: Judge | None = None,
) -> dict[str, float]:
    """Reliability, generalization, locality and portability of a model on some requests, each in 0..1.

    Every distinct prompt is decoded once. Every question weighs the same. A dimension without questions has no key.
    What comes back is a dictionary of numbers that also knows how they were measured: `Scores.protocol`.

    Args:
        module: An `EditableModule` or a `LanguageModel`.
        requests: The edits it should carry.
        baseline: What the unedited model answered, from `measure_baseline`: `locality` is then the share of answers
            that are still the same. Without it locality probes are judged by the dataset's own answers, and the key
            says so: `locality_gold`.
        decode: `greedy`: the model writes, and its answer is judged. `teacher_forced`: cheaper and flattering, see
            `evaluation/answering.py`.
        by_kind: Add `locality/<kind>` and `portability/<kind>`.
        options: Lengths and batch size; those of the baseline by default.
        judge: Gives the verdicts on what the model writes, see `lightning_edit.judges`; the exact judge by default.
            The share of answers on which another one agrees with it is added as `judge_agreement`.
    """
    outcomes = ask(module, requests, baseline, decode, options, judge=judge)
    how = options or (baseline.options if baseline else AnswerOptions())
    return Scores(shares(outcomes, by_kind), protocol_of(decode, how, baseline is not None, judge))


def protocol_of(
    decode: Decoding, options: AnswerOptions, against_unedited: bool, judge: Judge | None = None
) -> Protocol:
    """How the answers to questions are decoded, read and judged.

    Args:
        decode: `greedy` or `teacher_forced`.
        options: How the model is asked.
        against_unedited: Whether locality is held against the unedited model; else against the dataset's answers.
        judge: What gives the verdicts; the exact judge by default.
    """
    locality = "unedited" if against_unedited else "gold"
    if decode == "teacher_forced":
        return Protocol(decode, "target_tokens", locality=locality, chat=options.chat, system=options.system)
    return Protocol(decode, judge.name if judge else "exact_match", locality=locality, **options.wording())


def ask(
    module: object,
    requests: Iterable[EditRequest],
    baseline: Baseline | None = None,
    decode: Decoding = "greedy",
    options: AnswerOptions | None = None,
    active: Iterable[EditRequest] | None = None,
    judge: Judge | None = None,
) -> list[Outcome]:
    """Every question about some requests with the model's answer and the verdict, as `evaluate` counts them.

    Args:
        module: An `EditableModule` or a `LanguageModel`.
        requests: The edits to ask about.
        baseline: What the unedited model answered.
        decode: `greedy` or `teacher_forced`.
        options: Lengths and batch size; those of the baseline by default.
        active: All edits the model carries, if more than are asked about; what they change is no locality probe.
        judge: Gives the verdicts on what the model writes; the exact judge by default.
    """
    if baseline is not None and options is not None:
        baseline.check(options)
    options = options or (baseline.options if baseline else AnswerOptions())
    questions = make_questions(requests, baseline.answers if baseline else None, active)
    return answerer(decode, judge)(as_language_model(module), questions, options)


def shares(outcomes: Sequence[Outcome], by_kind: bool = False) -> dict[str, float]:
    """Share of right answers in each dimension of which something was asked.

    The same numbers as the classes of `lightning_edit.metrics` give, for one process and without their states. Where
    another judge than the exact one judged, `judge_agreement` is the share of answers on which the two agree.

    Args:
        outcomes: What came of the questions.
        by_kind: Add the shares of each kind of probe.
    """
    result: dict[str, float] = {}
    for dimension in DIMENSIONS:
        asked = [outcome for outcome in outcomes if outcome.question.dimension == dimension]
        if not asked:
            continue
        result[dimension] = sum(outcome.right for outcome in asked) / len(asked)
        kinds = [outcome.question.kind for outcome in asked]
        for kind in dict.fromkeys(kinds) if by_kind else ():
            if kind is not None:
                right = [outcome.right for outcome in asked if outcome.question.kind == kind]
                result[f"{dimension}/{kind}"] = sum(right) / len(right)
    both = [outcome.right == outcome.exact for outcome in outcomes if outcome.exact is not None]
    return {**result, "judge_agreement": sum(both) / len(both)} if both else result
