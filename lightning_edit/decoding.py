"""What a model says: greedy continuations of many prompts at once.

Batches are made of prompts of like length and padded on the left, with attention masks and position ids that make each
row what it would be alone; the cache of keys and values is reused; a row that is done leaves the batch, and the batch
ends when all are. This file knows tokens and text. It does not know what the right answer is, nor where in the text the
answer stands (`evaluation/reading.py`). The model and the tokenizer stay as they were.
"""

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from lightning_edit.errors import RequestError
from lightning_edit.model.encoding import pad, padding_token, tokenize
from lightning_edit.model.language_model import LanguageModel

Stop = Callable[[str, str], bool]
"""From a prompt and the text written behind it so far to whether that is enough."""


def decode(
    lm: LanguageModel,
    prompts: Sequence[str],
    max_new_tokens: int = 32,
    batch_size: int = 64,
    stop: Stop | None = None,
) -> list[str]:
    r"""Continue every prompt greedily: $y_t = \arg\max_y p(y \mid x, y_{<t})$.

    A row ends at an end-of-text token, after `max_new_tokens`, at the end of the model's context, or when `stop` says
    so. Equal prompts are decoded once. The result does not depend on how prompts are batched, up to ties that rounding
    decides.

    Args:
        lm: The language model.
        prompts: Texts to continue, without white space at their ends.
        max_new_tokens: Longest continuation in tokens.
        batch_size: Prompts in one forward.
        stop: When a row is done; its text is returned as it then is. None: at the first line break behind some text,
            where it is cut.

    Returns:
        The continuations in the order of the prompts, without special tokens and without white space around them.
    """
    unique = list(dict.fromkeys(prompts))
    rows = [_Row(prompt, ids) for prompt, (ids, _) in zip(unique, tokenize(lm.tokenizer, unique), strict=True)]
    check_room(lm, [(row.prompt, len(row.ids)) for row in rows])
    order = sorted(rows, key=lambda row: -len(row.ids))
    with lm.borrow():
        for start in range(0, len(order), batch_size):
            _write_batch(lm, order[start : start + batch_size], max_new_tokens, stop or _has_line)
    texts = {row.prompt: row.text.strip() for row in rows}
    return [texts[prompt] if stop else texts[prompt].partition("\n")[0].rstrip() for prompt in prompts]


def forward_last(lm: LanguageModel, ids: Tensor, mask: Tensor, last: int = 1, cache: Any = None) -> Any:
    """One forward over left-padded rows, with logits at the last positions only.

    Args:
        lm: The language model, borrowed.
        ids: New tokens (b, t).
        mask: Attention mask of the cached and the new tokens (b, T).
        last: Number of positions whose logits are wanted.
        cache: Keys and values of the tokens before the new ones; None starts afresh without keeping any.

    Returns:
        The model's output; `logits` is (b, last, v).
    """
    positions = (mask.cumsum(-1) - 1).clamp_min(0)[:, -ids.shape[1] :]  # (b, t)
    wanted = {"position_ids": positions, "logits_to_keep": last}  # some models count by the mask, some keep all logits
    known = inspect.signature(lm.model.forward).parameters
    extra = {name: value for name, value in wanted.items() if name in known}
    output = lm.model(input_ids=ids, attention_mask=mask, use_cache=cache is not None, past_key_values=cache, **extra)
    output.logits = output.logits[:, -last:]
    return output


def check_room(lm: LanguageModel, lengths: Iterable[tuple[str, int]]) -> None:
    """Refuse texts that are longer than the model's context.

    Args:
        lm: The language model.
        lengths: Each text with its number of tokens.
    """
    for text, length in lengths:
        if length > lm.max_length:
            raise RequestError(
                f"found {length} tokens in {text[:80]!r}, expected at most {lm.max_length} (the model's context); "
                "shorten the text or leave it out."
            )


@dataclass(slots=True)
class _Row:
    """A prompt, its tokens, and what has been written behind it."""

    prompt: str
    ids: list[int]
    written: list[int] = field(default_factory=list)
    text: str = ""


def _write_batch(lm: LanguageModel, rows: list[_Row], max_new_tokens: int, stop: Stop) -> None:
    """Write behind each row until all are done."""
    ends, cache = _end_tokens(lm), DynamicCache(config=lm.model.config.get_text_config())
    ids, mask = pad([row.ids for row in rows], padding_token(lm.tokenizer), "left", lm.device)  # (b, t)
    for _ in range(max_new_tokens):
        tokens = forward_last(lm, ids, mask, 1, cache).logits[:, -1].argmax(-1)  # (b,)
        going = [(slot, token) for slot, token in enumerate(tokens.tolist()) if token not in ends]
        if going:
            _append(lm, [(rows[slot], token) for slot, token in going])
        keep = [slot for slot, _ in going if not _is_done(lm, rows[slot], stop)]
        if not keep:
            break
        if len(keep) < len(rows):
            index = torch.tensor(keep, device=mask.device)
            cache.batch_select_indices(index)
            rows, mask, tokens = [rows[slot] for slot in keep], mask[index], tokens[index]
        ids = tokens[:, None]  # (b, 1)
        mask = torch.cat([mask, mask.new_ones(len(keep), 1)], 1)


def _append(lm: LanguageModel, pairs: list[tuple[_Row, int]]) -> None:
    """Write one more token behind each row and read its text anew; one token need not be a whole character."""
    for row, token in pairs:
        row.written.append(token)
    written = [row.written for row, _ in pairs]
    texts = lm.tokenizer.batch_decode(written, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    for (row, _), text in zip(pairs, texts, strict=True):
        row.text = text


def _is_done(lm: LanguageModel, row: _Row, stop: Stop) -> bool:
    return len(row.ids) + len(row.written) >= lm.max_length or stop(row.prompt, row.text)


def _has_line(prompt: str, text: str) -> bool:
    """The default stop: a line break behind some text."""
    return "\n" in text.lstrip()


def _end_tokens(lm: LanguageModel) -> set[int]:
    """Tokens after which nothing comes; chat models have more than the tokenizer's own."""
    named = getattr(getattr(lm.model, "generation_config", None), "eos_token_id", None)
    several = named if isinstance(named, list) else [named]
    return {token for token in (lm.tokenizer.eos_token_id, *several) if token is not None}
