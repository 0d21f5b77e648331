"""How likely given continuations are behind given prompts.

Every token of a continuation is predicted from the prompt and the continuation's *true* tokens before it: teacher
forcing. That is one forward per batch and needs no stopping rule, and it flatters: a model that would never start the
answer may well finish it. So whatever is counted here is called teacher-forced or a likelihood, and reliability proper
is decoded (`lightning_edit/decoding.py`). This file knows tokens and their probabilities, not what they mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_edit.chat import Chat, render
from lightning_edit.decoding import check_room
from lightning_edit.errors import EditError, RequestError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.layout import Pair, Side

Reduction = Literal["mean", "sum"]


@dataclass(frozen=True, slots=True)
class Likelihoods:
    """Token by token, how likely m continuations are; on the CPU, log-probabilities in float64.

    Args:
        logs: For each continuation, log p of each of its tokens behind the true ones before it, (t,).
        likeliest: For each continuation, whether each token is the likeliest there, (t,) of bool.
    """

    logs: list[Tensor]
    likeliest: list[Tensor]

    @property
    def sum(self) -> Tensor:
        """Log-probability of each whole continuation, (m,)."""
        return _stack([logs.sum() for logs in self.logs])

    @property
    def mean(self) -> Tensor:
        """Log-probability per token of each continuation, (m,)."""
        return _stack([logs.mean() for logs in self.logs])

    @property
    def exact(self) -> Tensor:
        """Whether every token of a continuation is the likeliest one, (m,) of bool."""
        return torch.tensor([bool(likeliest.all()) for likeliest in self.likeliest], dtype=torch.bool)


def log_likelihoods(
    lm: LanguageModel,
    prompts: Sequence[str],
    continuations: Sequence[str],
    reduce: Reduction = "mean",
    batch_size: int = 64,
    padding: Side = "left",
    chat: Chat | None = None,
) -> Tensor:
    r"""Log-probabilities of continuations behind prompts.

    $$\text{sum} = \sum_t \log p(y_t \mid x, y_{<t}), \qquad \text{mean} = \text{sum} / |y|$$

    `sum` is the log-probability of the text, which is the smaller the longer the text. `mean` is what the published
    CounterFact evaluation compares.

    Args:
        lm: The language model.
        prompts: Prompts without white space at their ends.
        continuations: One for each prompt, without a leading space.
        reduce: `mean` per token, or `sum`.
        batch_size: Texts in one forward.
        padding: See `score_continuations`.
        chat: See `score_continuations`.

    Returns:
        Log-probabilities (m,) in float64, on the CPU.
    """
    if reduce not in ("mean", "sum"):
        raise EditError(f"found reduce={reduce!r}, expected 'mean' or 'sum'.")
    scores = score_continuations(lm, prompts, continuations, batch_size, padding, chat)
    return scores.mean if reduce == "mean" else scores.sum


def score_continuations(
    lm: LanguageModel,
    prompts: Sequence[str],
    continuations: Sequence[str],
    batch_size: int = 64,
    padding: Side = "left",
    chat: Chat | None = None,
    joint: str = " ",
) -> Likelihoods:
    """Score continuations behind prompts, token by token, many in one forward.

    An encoder-decoder reads the prompt in its encoder and is scored on what its decoder says, each token where the
    decoder has been given those before it.

    What is scored are the tokens of `prompt + " " + continuation` that reach beyond the prompt: the two are tokenized
    as one text, as they would be read, and a token that crosses the border counts to the continuation. In a chat the
    continuation opens the model's turn and gets no space. Each text is scored as it would be alone, however it is
    batched and padded.

    Args:
        lm: The language model.
        prompts: Prompts without white space at their ends.
        continuations: One for each prompt, without a leading space.
        batch_size: Texts in one forward.
        padding: The side that shorter texts are filled up on. Left keeps the scores of a batch together and costs the
            least; right is for modules that count positions from the left by themselves.
        chat: Put the prompts through the tokenizer's chat template; None takes the bare text.
        joint: What stands between a prompt and its continuation, where there is no chat.
    """
    rows = _rows(lm, prompts, continuations, chat, joint)
    logs, likeliest = [torch.zeros(0)] * len(rows), [torch.zeros(0)] * len(rows)
    order = sorted(range(len(rows)), key=lambda index: -lm.layout.size(rows[index]))
    lm.progress.more(len(order))
    with lm.borrow():
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            scored = _score_batch(lm, [rows[index] for index in batch], padding)
            for index, (log, top) in zip(batch, scored, strict=True):
                logs[index], likeliest[index] = log, top
            lm.progress.done(len(batch))
    return Likelihoods(logs, likeliest)


def _rows(
    lm: LanguageModel, prompts: Sequence[str], continuations: Sequence[str], chat: Chat | None, joint: str
) -> list[Pair]:
    """Tokens of each prompt and of its continuation."""
    told = lm.recall(prompts, chat)
    heads, joint = (told, joint) if chat is None else (render(lm.tokenizer, told, chat), "")
    texts = [f"{head}{joint}{tail}" for head, tail in zip(heads, continuations, strict=True)]
    pairs = lm.layout.split(lm, heads, continuations, joint, special=chat is None)
    for text, tail, pair in zip(texts, continuations, pairs, strict=True):
        length = len(pair.answer) if tail.strip() else 0
        if not length or not pair.prompt:
            raise RequestError(
                f"found {length} target tokens among the {len(pair.prompt) + len(pair.answer)} of {text!r}; expected "
                "at least one of the target and one before it. Give a prompt and a target that is not empty."
            )
    check_room(lm, [(text, lm.layout.size(pair)) for text, pair in zip(texts, pairs, strict=True)])
    return pairs


def _score_batch(lm: LanguageModel, rows: list[Pair], padding: Side) -> list[tuple[Tensor, Tensor]]:
    """For each row, log-probabilities of the continuation's tokens and whether each is the likeliest, (t,) each."""
    with lm.scope.announce([len(row.prompt) for row in rows]):
        found = lm.layout.predict(lm, rows, padding)
    logits, labels = found.logits, found.labels  # (b, w, v), (b, w)
    logs = logits.gather(-1, labels[..., None])[..., 0].double() - _normaliser(logits)  # (b, w)
    top = logits.argmax(-1) == labels
    return [(log[place], hit[place]) for log, hit, place in zip(logs.cpu(), top.cpu(), found.places, strict=True)]


def _normaliser(logits: Tensor) -> Tensor:
    """The log of Σ exp over the vocabulary, (b, w) in float64; row by row, because a copy of all of it may not fit."""
    return torch.stack([row.double().logsumexp(-1) for row in logits])


def _stack(values: list[Tensor]) -> Tensor:
    return torch.stack(values) if values else torch.zeros(0, dtype=torch.float64)
