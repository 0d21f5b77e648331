"""CounterFact's table: efficacy, paraphrase and neighbourhood scores, their magnitudes, and their harmonic mean.

Two likelihoods for each prompt, nothing decoded: which of two answers does the model prefer? The numbers say less about
what a user would see than `evaluate` does, and they are what most papers on editing print.
"""

from collections.abc import Iterable, Sequence

import torch

from lightning_edit.errors import RequestError
from lightning_edit.evaluation.answering import AnswerOptions
from lightning_edit.evaluation.likelihood import Reduction, log_likelihoods
from lightning_edit.evaluation.protocol import Protocol, Scores
from lightning_edit.metrics.comparison import harmonic_mean, target_magnitude, target_success
from lightning_edit.metrics.counterfact import KINDS, Kind
from lightning_edit.metrics.records import mean_over_records
from lightning_edit.model.language_model import as_language_model
from lightning_edit.requests import EditRequest

NEIGHBORHOOD = "neighborhood"
"""The kind of locality probe that shares the old answer with the edited subject."""

Asked = tuple[Kind, EditRequest, str]
"""A prompt with the request it belongs to and what is asked about it."""


def evaluate_counterfact(
    module: object,
    requests: Iterable[EditRequest],
    reduce: Reduction = "mean",
    neighborhood: str = NEIGHBORHOOD,
    options: AnswerOptions | None = None,
) -> Scores:
    """CounterFact's scores of a model on some requests, as Meng et al. (2022) compute them.

    Keys: `efficacy_success`, `paraphrase_success`, `neighborhood_success`, the same with `_magnitude`, and `score`, the
    harmonic mean of the three successes. Every record weighs the same. A kind that was not asked has no key, and then
    there is no `score`.

    Args:
        module: An `EditableModule` or a `LanguageModel`.
        requests: The edits it should carry; each needs `old`, the answer it had.
        reduce: Compare log-probabilities per token (`mean`, the published code) or of whole answers (`sum`, the paper's
            formula, which prefers short answers).
        neighborhood: The kind of locality probes for which the old answer is true.
        options: Batch size and chat template.
    """
    records = list(requests)
    _check_old(records)
    how = options or AnswerOptions()
    asked = _asked(records, neighborhood)
    pairs = [(prompt, answer) for _, request, prompt in asked for answer in (request.target, str(request.old))]
    unique = list(dict.fromkeys(pairs))
    prompts, answers = [prompt for prompt, _ in unique], [answer for _, answer in unique]
    lm = as_language_model(module)
    logs = log_likelihoods(lm, prompts, answers, reduce, how.batch_size, chat=how.template)
    place = {pair: index for index, pair in enumerate(unique)}
    both = logs[torch.tensor([place[pair] for pair in pairs], dtype=torch.long)].view(-1, 2)  # (m, 2): new, old
    detail = "mean log-probability per token" if reduce == "mean" else "log-probability of the whole answer"
    protocol = Protocol(
        "likelihood", "new_over_old", "records", "old answer", chat=how.chat, system=how.system, detail=detail
    )
    return Scores(_table(asked, both), protocol)


def _table(asked: Sequence[Asked], both: torch.Tensor) -> dict[str, float]:
    """Success and magnitude of each kind, and the score over all kinds."""
    table: dict[str, float] = {}
    for kind in KINDS:
        chosen = [index for index, (of, _, _) in enumerate(asked) if of == kind]
        if not chosen:
            continue
        ids = [asked[index][1].id for index in chosen]
        new, old = both[chosen].unbind(-1)
        wanted, other = (old, new) if kind == "neighborhood" else (new, old)
        table[f"{kind}_success"] = mean_over_records(target_success(wanted, other), ids).item()
        table[f"{kind}_magnitude"] = mean_over_records(target_magnitude(wanted, other), ids).item()
    successes = [table[f"{kind}_success"] for kind in KINDS if f"{kind}_success" in table]
    if len(successes) == len(KINDS):
        table["score"] = harmonic_mean(torch.tensor(successes, dtype=torch.float64)).item()
    return table


def _asked(requests: Sequence[EditRequest], neighborhood: str) -> list[Asked]:
    asked: list[Asked] = []
    for request in requests:
        asked.append(("efficacy", request, request.prompt))
        asked += [("paraphrase", request, text) for text in request.paraphrases]
        asked += [("neighborhood", request, probe.prompt) for probe in request.locality.get(neighborhood, ())]
    return asked


def _check_old(requests: Sequence[EditRequest]) -> None:
    for request in requests:
        if not request.old:
            raise RequestError(
                f"request '{request.id}' names no old answer, expected one: CounterFact's scores compare the new "
                "answer with it. Add `old`, or leave the request out."
            )
