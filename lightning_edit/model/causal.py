"""Decoder-only models: prompt and answer are one text, which is read from its beginning.

Rows of a batch are padded, with attention masks and position ids that make each what it would be alone. This file knows
tokens and forward passes; the face of it stands in `layout.py`.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

from lightning_edit.model.encoding import pad, padding_token, tokenize
from lightning_edit.model.layout import IGNORED, Feed, Layout, Pair, Prediction, Rows, Side, Writing

if TYPE_CHECKING:
    from lightning_edit.model.language_model import LanguageModel


class CausalLayout(Layout):
    """Decoder-only models: prompt and answer are one text."""

    separate = False
    task = "CAUSAL_LM"

    def read_prompts(self, lm: "LanguageModel", texts: Sequence[str], special: bool = True) -> list[list[int]]:
        """See `Layout`."""
        return [ids for ids, _ in tokenize(lm.tokenizer, texts, special=special)]

    def split(
        self, lm: "LanguageModel", heads: Sequence[str], tails: Sequence[str], joint: str = " ", special: bool = True
    ) -> list[Pair]:
        """See `Layout`."""
        texts = [f"{head}{joint}{tail}" for head, tail in zip(heads, tails, strict=True)]
        pairs = []
        for head, (ids, offsets) in zip(heads, tokenize(lm.tokenizer, texts, special=special), strict=True):
            cut = len(ids) - sum(end > len(head) for _, end in offsets)
            leading = next((place for place, (_, end) in enumerate(offsets) if end > 0), len(offsets))
            pairs.append(Pair(ids[:cut], ids[cut:], leading))
        return pairs

    def split_as_asked(
        self, lm: "LanguageModel", heads: Sequence[str], tails: Sequence[str], joint: str = " ", special: bool = True
    ) -> list[Pair]:
        """See `Layout`; where a token of the whole text crosses the border, the answer is tokenised by itself."""
        texts = [f"{head}{joint}{tail}" for head, tail in zip(heads, tails, strict=True)]
        alone = self.read_prompts(lm, heads, special)
        pairs = []
        for prompt, ids, tail in zip(alone, self.read_prompts(lm, texts, special), tails, strict=True):
            follows = ids[: len(prompt)] == prompt
            rest = ids[len(prompt) :] if follows else tokenize(lm.tokenizer, [joint + tail], special=False)[0][0]
            pairs.append(Pair(prompt, rest))
        return pairs

    def closing(self, lm: "LanguageModel") -> list[int]:
        """None: a text goes on behind an answer."""
        return []

    def size(self, pair: Pair) -> int:
        """See `Layout`."""
        return len(pair.prompt) + len(pair.answer)

    def room(self, lm: "LanguageModel", prompt: int) -> int:
        """See `Layout`."""
        return lm.max_length - prompt

    def last_of_prompt(self, lm: "LanguageModel", layer: int, prompt: int) -> int:
        """See `Layout`."""
        return prompt - 1

    def feed(self, lm: "LanguageModel", prompts: Rows, answers: Rows) -> Feed:
        """See `Layout`."""
        rows = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
        ids, mask = pad(rows, padding_token(lm.tokenizer), "right", lm.device)
        return Feed({"input_ids": ids, "attention_mask": mask}, [len(prompt) - 1 for prompt in prompts])

    def predict(self, lm: "LanguageModel", pairs: Sequence[Pair], padding: Side = "left") -> Prediction:
        """See `Layout`; logits are made from the batch's first answer on."""
        rows = [pair.prompt + pair.answer for pair in pairs]
        ids, mask = pad(rows, padding_token(lm.tokenizer), padding, lm.device)  # (b, T)
        width = ids.shape[1]
        ends = [width if padding == "left" else len(row) for row in rows]
        starts = [end - len(pair.answer) for end, pair in zip(ends, pairs, strict=True)]
        first = min(starts)  # nothing is scored before it
        logits = forward_last(lm, ids[:, :-1], mask[:, :-1], width - first).logits  # (b, w, v)
        places = [slice(start - first, end - first) for start, end in zip(starts, ends, strict=True)]
        return Prediction(logits, ids[:, first:], places)

    def begin(self, lm: "LanguageModel", prompts: Rows) -> Writing:
        """See `Layout`."""
        return CausalWriting(lm, prompts)

    def text_inputs(self, lm: "LanguageModel", batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Layout`."""
        return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}

    def training_inputs(self, lm: "LanguageModel", batch: Mapping[str, Tensor]) -> dict[str, Any]:
        """See `Layout`; without labels each token is predicted from those before it."""
        ids, mask, labels = batch["input_ids"], batch.get("attention_mask"), batch.get("labels")
        if labels is None:
            labels = ids if mask is None else ids.masked_fill(mask == 0, IGNORED)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    def training_rows(self, lm: "LanguageModel", rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """The rows as they are."""
        return rows

    def new_tokens(self, output: Tensor, width: int) -> Tensor:
        """See `Layout`."""
        return output[:, width:]


class CausalWriting(Writing):
    """Prompts of a decoder-only model, padded on the left.

    Args:
        lm: The language model, borrowed.
        prompts: Their tokens.
    """

    def __init__(self, lm: "LanguageModel", prompts: Rows) -> None:
        self._lm, self._cache = lm, DynamicCache(config=lm.model.config.get_text_config())
        self._ids, self._mask = pad(prompts, padding_token(lm.tokenizer), "left", lm.device)  # (b, t)

    def logits(self) -> Tensor:
        """See `Writing`."""
        logits: Tensor = forward_last(self._lm, self._ids, self._mask, 1, self._cache).logits[:, -1]
        return logits

    def keep(self, rows: Tensor) -> None:
        """See `Writing`."""
        self._cache.batch_select_indices(rows)
        self._mask = self._mask[rows]

    def write(self, tokens: Tensor) -> None:
        """See `Writing`."""
        self._ids = tokens[:, None]  # (b, 1)
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], 1)


def forward_last(lm: "LanguageModel", ids: Tensor, mask: Tensor, last: int = 1, cache: Any = None) -> Any:
    """One forward of a decoder-only model over padded rows, with logits at the last positions only.

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
