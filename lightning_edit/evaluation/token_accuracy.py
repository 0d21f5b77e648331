"""ZsRE's table: teacher-forced token accuracy on prompts, paraphrases and unrelated questions.

A named variant, kept for comparison with the columns that are made of it. The right beginning of every answer is given
away, so these numbers lie far above those of `evaluate`, which lets the model speak.
"""

from collections.abc import Iterable

from lightning_edit.evaluation.answering import AnswerOptions
from lightning_edit.evaluation.likelihood import score_continuations
from lightning_edit.evaluation.protocol import Protocol, Scores
from lightning_edit.evaluation.questions import GENERALIZATION, LOCALITY_GOLD, PORTABILITY, RELIABILITY, make_questions
from lightning_edit.metrics.token_accuracy import teacher_forced_token_accuracy
from lightning_edit.model.language_model import as_language_model
from lightning_edit.requests import EditRequest


def evaluate_token_accuracy(
    module: object, requests: Iterable[EditRequest], options: AnswerOptions | None = None
) -> Scores:
    """Teacher-forced token accuracy of a model on some requests, as MEMIT's evaluation of ZsRE computes it.

    Keys: `reliability_token_accuracy`, `generalization_token_accuracy`, `locality_gold_token_accuracy` (against the
    dataset's answers, not the unedited model's) and `portability_token_accuracy`; one that was not asked is absent.
    Tokens are pooled within a request, and every request weighs the same. Of several accepted answers the first counts.

    Args:
        module: An `EditableModule` or a `LanguageModel`.
        requests: The edits it should carry.
        options: Batch size and chat template.
    """
    how = options or AnswerOptions()
    questions = [one for one in make_questions(requests) if one.accepted and one.accepted[0]]
    pairs = list(dict.fromkeys((one.prompt, one.accepted[0]) for one in questions))
    prompts, answers = [prompt for prompt, _ in pairs], [answer for _, answer in pairs]
    lm = as_language_model(module)
    likeliest = score_continuations(lm, prompts, answers, how.batch_size, chat=how.template).likeliest
    tokens = dict(zip(pairs, likeliest, strict=True))
    table: dict[str, float] = {}
    for dimension in (RELIABILITY, GENERALIZATION, LOCALITY_GOLD, PORTABILITY):
        asked = [one for one in questions if one.dimension == dimension]
        if asked:
            right = [tokens[one.prompt, one.accepted[0]] for one in asked]
            accuracy = teacher_forced_token_accuracy(right, [one.request for one in asked])
            table[f"{dimension}_token_accuracy"] = accuracy.item()
    protocol = Protocol("teacher_forced", "tokens", "records", "gold", chat=how.chat, system=how.system)
    return Scores(table, protocol)
