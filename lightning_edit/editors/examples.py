"""From requests to token rows for a loss: what the model reads, and which token should follow where.

A request's text is `prompt + " " + target`, tokenised as one; a token belongs to the target if it reaches beyond the
prompt's last character, so neither the prompt nor a leading special token nor padding is ever learned. An
encoder-decoder reads the prompt in its encoder and learns the target, closed by an end token, in its decoder
(`model/seq2seq.py`). Rows are padded on the right, whatever side the tokenizer would pad.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_edit.errors import RequestError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.requests import EditRequest

Objective = Literal["target", "bag_of_tokens"]


@dataclass(frozen=True, slots=True)
class Example:
    """One request as tokens.

    Args:
        id: The request's id.
        prompt: Tokens of the prompt.
        given: Tokens of the target that the model is given behind it.
        positions: Where predictions are scored, counted from the one behind the prompt.
        labels: The token that should come next at each of them.
    """

    id: str
    prompt: tuple[int, ...]
    given: tuple[int, ...]
    positions: tuple[int, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples that are run together.

    Args:
        examples: The b examples.
        inputs: Keyword arguments of the model: tokens, padded on the right, with their masks (b, t).
        rows: Row of each scored position (s,).
        positions: Its place in the row (s,).
        labels: Token that should follow (s,).
        shares: Its share in its row's loss, one over the row's number of labels (s,).
    """

    examples: tuple[Example, ...]
    inputs: dict[str, Tensor]
    rows: Tensor
    positions: Tensor
    labels: Tensor
    shares: Tensor


def make_examples(
    lm: LanguageModel, requests: Sequence[EditRequest], objective: Objective = "target", include_bos: bool = False
) -> list[Example]:
    """Tokenise requests.

    Args:
        lm: The language model whose tokenizer is used.
        requests: The requests.
        objective: `target` scores each target token after the prompt and the target tokens before it;
            `bag_of_tokens` scores all of them at the prompt's last token, in any order.
        include_bos: With `bag_of_tokens`: special tokens that the tokenizer puts before a text are targets too.
    """
    pairs = lm.layout.split(lm, [request.prompt for request in requests], [request.target for request in requests])
    closing = tuple(lm.layout.closing(lm))
    examples = []
    for request, pair in zip(requests, pairs, strict=True):
        prompt, labels = tuple(pair.prompt), tuple(pair.answer)
        if not prompt or not labels:
            raise RequestError(
                f"request {request.id!r}: found {len(prompt)} tokens of the prompt and {len(labels)} of the target "
                f"{request.target!r} behind them; expected at least one of each. Check prompt and target."
            )
        size = lm.layout.size(pair)
        if size > lm.max_length:
            raise RequestError(
                f"request {request.id!r} has {size} tokens; expected at most {lm.max_length}, the model's context. "
                "Shorten the prompt."
            )
        if objective == "target":
            labels += closing
            examples.append(Example(request.id, prompt, labels[:-1], tuple(range(len(labels))), labels))
            continue
        labels = (prompt[: pair.leading] if include_bos else ()) + labels
        examples.append(Example(request.id, prompt, (), (0,) * len(labels), labels))
    return examples


def make_batches(lm: LanguageModel, examples: Sequence[Example], size: int) -> list[Batch]:
    """Examples in their order, padded, on the model's device.

    Args:
        lm: The language model.
        examples: The examples.
        size: Examples in one batch at most.
    """
    return [_batch(lm, examples[start : start + size]) for start in range(0, len(examples), size)]


def _batch(lm: LanguageModel, examples: Sequence[Example]) -> Batch:
    """One batch."""
    feed = lm.layout.feed(lm, [example.prompt for example in examples], [example.given for example in examples])
    scored = [
        (row, feed.starts[row] + position, label, 1 / len(example.labels))
        for row, example in enumerate(examples)
        for position, label in zip(example.positions, example.labels, strict=True)
    ]
    rows, positions, labels, shares = zip(*scored, strict=True)
    row, position, label = torch.tensor([rows, positions, labels], device=lm.device)
    share = torch.tensor(shares, dtype=torch.float64, device=lm.device)
    return Batch(tuple(examples), feed.inputs, row, position, label, share)


def example_losses(lm: LanguageModel, batch: Batch) -> Tensor:
    r"""Loss of each example (b,), in float32 or, if the model is, in float64.

    $$L = -\frac{1}{T} \sum_{t=1}^{T} \log p(y_t \mid x, y_{<t})$$

    with the prompt x and the target's tokens y; for a bag of tokens \(\log p(y_t \mid x)\) instead.

    Args:
        lm: The language model.
        batch: The batch.
    """
    log_p = target_log_probs(lm, batch)
    right = log_p.gather(1, batch.labels.to(log_p.device)[:, None])[:, 0]
    losses = torch.zeros(len(batch.examples), dtype=log_p.dtype, device=log_p.device)
    return losses.index_add(0, batch.rows.to(log_p.device), -right * batch.shares.to(right))


def target_log_probs(lm: LanguageModel, batch: Batch) -> Tensor:
    """Log-probabilities of all tokens at each scored position (s, vocabulary), in float32 or, as the model, float64.

    Args:
        lm: The language model.
        batch: The batch.
    """
    output = lm.model(**batch.inputs, use_cache=False)
    logits: Tensor = output.logits[batch.rows, batch.positions]
    return (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1)
