"""How likely given targets are: teacher forcing.

Every token of a target is predicted from the prompt and the target's *true* tokens before it. That is one forward per
batch and needs no stopping rule, and it flatters: a model that would never start the answer may well finish it. So
whatever is scored here is called teacher-forced, and reliability proper is decoded (`lightning_edit/decoding.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_edit.decoding import check_room, forward_last
from lightning_edit.errors import RequestError
from lightning_edit.model.encoding import pad, padding_token, tokenize
from lightning_edit.model.language_model import LanguageModel


@dataclass(frozen=True, slots=True)
class TargetScores:
    """Scores of m targets, on the CPU.

    Args:
        sum: Log-probability of the whole target, (m,).
        mean: Log-probability per token of the target, (m,).
        top: Whether every token of the target is the likeliest one, (m,) of bool.
    """

    sum: Tensor
    mean: Tensor
    top: Tensor


def target_probabilities(
    lm: LanguageModel, prompts: Sequence[str], targets: Sequence[str], batch_size: int = 64
) -> TargetScores:
    r"""Log-probabilities of targets behind prompts, teacher-forced.

    $$\text{sum} = \sum_t \log p(y_t \mid x, y_{<t}), \qquad \text{mean} = \text{sum} / |y|$$

    over the tokens of `prompt + " " + target` that reach beyond the prompt. "The new target is more likely than the
    old" compares `mean`, as Meng et al. (2022) do in CounterFact's efficacy score; `sum` prefers short targets.

    Args:
        lm: The language model.
        prompts: Prompts without white space at their ends.
        targets: One target for each prompt, without a leading space.
        batch_size: Texts in one forward.
    """
    rows = _rows(lm, prompts, targets)
    total, count = torch.zeros(len(rows)), torch.zeros(len(rows))
    top = torch.zeros(len(rows), dtype=torch.bool)
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index][0]))
    with lm.borrow():
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            for index, (logs, likeliest) in zip(batch, _score_batch(lm, [rows[i] for i in batch]), strict=True):
                total[index], count[index], top[index] = logs.sum(), len(logs), likeliest.all()
    return TargetScores(total, total / count, top)


def _rows(lm: LanguageModel, prompts: Sequence[str], targets: Sequence[str]) -> list[tuple[list[int], int]]:
    """Tokens of each text, and how many of them, at its end, are the target's."""
    texts = [f"{prompt} {target}" for prompt, target in zip(prompts, targets, strict=True)]
    rows = []
    encoded = tokenize(lm.tokenizer, texts)
    for text, prompt, target, (ids, offsets) in zip(texts, prompts, targets, encoded, strict=True):
        length = sum(end > len(prompt) for _, end in offsets) if target.strip() else 0
        if not 0 < length < len(ids):
            raise RequestError(
                f"found {length} target tokens among the {len(ids)} of {text!r}; expected at least one of the target "
                "and one before it. Give a prompt and a target that is not empty."
            )
        rows.append((ids, length))
    check_room(lm, [(text, len(ids)) for text, (ids, _) in zip(texts, rows, strict=True)])
    return rows


def _score_batch(lm: LanguageModel, rows: list[tuple[list[int], int]]) -> list[tuple[Tensor, Tensor]]:
    """For each row, log-probabilities of the target's tokens and whether each is the likeliest, (t,) each."""
    ids, mask = pad([ids for ids, _ in rows], padding_token(lm.tokenizer), "left", lm.device)
    last = max(length for _, length in rows)
    logits = forward_last(lm, ids[:, :-1], mask[:, :-1], last).logits  # (b, last, v)
    labels = ids[:, -last:]  # (b, last)
    logs = logits.float().log_softmax(-1).gather(-1, labels[..., None])[..., 0].cpu()  # (b, last)
    likeliest = (logits.argmax(-1) == labels).cpu()
    return [(logs[row, last - length :], likeliest[row, last - length :]) for row, (_, length) in enumerate(rows)]
