"""Texts as tokens, with the place of every token in its text.

This file knows fast tokenizers. It finds tokens by character offsets and never by comparing pieces, it pads by itself,
and it leaves the tokenizer's own settings as they were.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lightning_edit.errors import EditError, RequestError

Offsets = list[tuple[int, int]]
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A padded batch of texts.

    Args:
        input_ids: Tokens (m, t).
        attention_mask: 1 where there is a token of the text, 0 at padding (m, t).
        offsets: Characters [start, end) of each token of each text, without padding; special tokens have (0, 0).
    """

    input_ids: Tensor
    attention_mask: Tensor
    offsets: list[Offsets]

    @property
    def position_ids(self) -> Tensor:
        """Positions counted from each text's first token, whichever side is padded (m, t)."""
        return (self.attention_mask.cumsum(-1) - 1).clamp_min(0)


def tokenize(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    max_length: int | None = None,
    special: bool = True,
    end: bool = False,
) -> list[tuple[list[int], Offsets]]:
    """Token ids and offsets of each text, unpadded, with the special tokens that the tokenizer puts in front.

    An end-of-text token that the tokenizer appends is left out: nearly every text here is one that goes on.

    Args:
        tokenizer: A fast tokenizer.
        texts: The texts.
        max_length: Keep this many tokens of each text at most, from its beginning.
        special: Whether to put special tokens in front; False for a text that brings its own, as a rendered chat does.
        end: Whether to keep an end-of-text token that the tokenizer appends; True for a text that is read as a whole.
    """
    if not tokenizer.is_fast:
        raise EditError(
            f"{type(tokenizer).__name__} gives no character offsets; expected a fast tokenizer. "
            "Load it with AutoTokenizer from a folder that holds tokenizer.json."
        )
    if not texts:
        return []
    with _untouched(tokenizer):
        settings = {"padding": False, "truncation": False, "verbose": False, "add_special_tokens": special}
        batch = tokenizer(list(texts), return_offsets_mapping=True, **settings)
    rows = []
    for index, (ids, offsets) in enumerate(zip(batch["input_ids"], batch["offset_mapping"], strict=True)):
        while not end and len(ids) > 1 and ids[-1] == tokenizer.eos_token_id and tuple(offsets[-1]) == (0, 0):
            ids, offsets = ids[:-1], offsets[:-1]
        if not ids:
            raise RequestError(f"text {index} of {len(texts)}, {texts[index]!r}, has no tokens; expected at least one.")
        rows.append((list(ids[:max_length]), [(start, end) for start, end in offsets[:max_length]]))
    return rows


def pad(
    rows: Sequence[Sequence[int]], fill: int, side: Literal["left", "right"], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Rows of unequal length as one batch.

    Args:
        rows: Token ids of each text.
        fill: Token to fill with.
        side: Where to fill.
        device: Where the result lies.

    Returns:
        Tokens (m, t) and attention mask (m, t).
    """
    length = max(map(len, rows), default=0)
    ids = torch.full((len(rows), length), fill, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(length - len(row), length)
        ids[index, place] = torch.tensor(row, dtype=torch.long)
        mask[index, place] = 1
    return ids.to(device), mask.to(device)


def padding_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token to fill with; any will do, since padding is masked.

    Args:
        tokenizer: A tokenizer, perhaps without a padding token.
    """
    known = (token for token in (tokenizer.pad_token_id, tokenizer.eos_token_id) if token is not None)
    return int(next(known, 0))


def last_token(text: str, offsets: Offsets, span: Span) -> int:
    """Index of the last token that overlaps the last character of a span.

    Where the tokenizer's normalisation dropped that character, the last token that overlaps the span at all.

    Args:
        text: The text, for messages.
        offsets: Characters of each token.
        span: Characters [start, end) of the subject.
    """
    start, end = span
    if not 0 <= start < end <= len(text):
        raise RequestError(
            f"the subject's span {span} does not lie in the text {text!r} of {len(text)} characters; "
            "expected 0 <= start < end <= length."
        )
    for first in (end - 1, start):
        hits = [index for index, (left, right) in enumerate(offsets) if left < end and right > first]
        if hits:
            return hits[-1]
    raise RequestError(
        f"no token covers the subject {text[start:end]!r} in {text!r}; expected the tokenizer to keep it. "
        "Check that the text is not cut before its subject."
    )


@contextmanager
def _untouched(tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """Keep the padding and truncation that are set in the tokenizer's backend, and would be saved with it."""
    backend = tokenizer.backend_tokenizer
    padding, truncation = backend.padding, backend.truncation
    try:
        yield
    finally:
        backend.no_padding() if padding is None else backend.enable_padding(**padding)
        backend.no_truncation() if truncation is None else backend.enable_truncation(**truncation)
