"""T5-style encoder-decoders: the prompt goes to the encoder, the answer to the decoder, shifted by one place.

    decoder inputs   start y_1 ... y_{T-1}
    labels           y_1   y_2 ... y_T

as transformers does it with `labels`. Scores of the label y_t stand where the decoder has been given y_{t-1}: read at
y_t itself, as public editing code reads them, they would measure copying. The encoder gets the prompt with the end
token that its tokenizer appends; an answer is closed by an end token while it is learned, since a decoder's output is a
whole text, and not while it is scored. Texts without an answer are cut in the middle, and the second half is what
follows the first (the prefix language modelling of Raffel et al., arXiv 1910.10683, section 3.3.1).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from lightning_edit.errors import EditError
from lightning_edit.model.causal import CausalLayout
from lightning_edit.model.encoding import pad, padding_token, tokenize
from lightning_edit.model.layout import IGNORED, Feed, Layout, Pair, Prediction, Rows, Side, Writing

if TYPE_CHECKING:
    from lightning_edit.model.language_model import LanguageModel

FAMILIES = ("t5", "mt5", "umt5")
"""Encoder-decoders that are known to read and write as this file says."""


def layout_of(model: Any) -> Layout:
    """How a model is given prompts and answers.

    Args:
        model: A transformers model without wrappers.
    """
    return Seq2SeqLayout() if is_encoder_decoder(model) else CausalLayout()


def is_encoder_decoder(model: Any) -> bool:
    """Whether a model has an encoder beside its decoder.

    Args:
        model: A transformers model, or its configuration.
    """
    return bool(getattr(getattr(model, "config", model), "is_encoder_decoder", False))


def auto_class(source: Any) -> Any:
    """The transformers class that loads or builds a language model.

    Args:
        source: Hub name or folder, or a configuration.
    """
    config = AutoConfig.from_pretrained(source) if isinstance(source, str) else source
    return AutoModelForSeq2SeqLM if is_encoder_decoder(config) else AutoModelForCausalLM


def start_token(lm: "LanguageModel") -> int:
    """The token that stands before everything that a decoder writes.

    Args:
        lm: The language model.
    """
    model = lm.model
    named = [getattr(home, "decoder_start_token_id", None) for home in (model.config, model.generation_config)]
    token = next((token for token in (*named, model.config.pad_token_id) if token is not None), None)
    if token is None:
        raise EditError(
            f"the configuration of {type(model).__name__} names no decoder_start_token_id and no pad_token_id; "
            "expected one, which its decoder starts from. Set model.config.decoder_start_token_id."
        )
    return int(token)


class Seq2SeqLayout(Layout):
    """T5-style encoder-decoders."""

    separate = True
    task = "SEQ_2_SEQ_LM"

    def read_prompts(self, lm: "LanguageModel", texts: Sequence[str], special: bool = True) -> list[list[int]]:
        """See `Layout`; the end token that the tokenizer appends stays."""
        return [ids for ids, _ in tokenize(lm.tokenizer, texts, special=special, end=True)]

    def split(
        self, lm: "LanguageModel", heads: Sequence[str], tails: Sequence[str], joint: str = " ", special: bool = True
    ) -> list[Pair]:
        """See `Layout`; the two are tokenised apart, and nothing stands between them."""
        written = iter(tokenize(lm.tokenizer, [tail for tail in tails if tail.strip()], special=False))
        answers = [next(written)[0] if tail.strip() else [] for tail in tails]
        return [Pair(head, answer) for head, answer in zip(self.read_prompts(lm, heads, special), answers, strict=True)]

    def closing(self, lm: "LanguageModel") -> list[int]:
        """The end token, where there is one."""
        return [] if lm.tokenizer.eos_token_id is None else [int(lm.tokenizer.eos_token_id)]

    def size(self, pair: Pair) -> int:
        """The longer of the two: each stack has a context of its own."""
        return max(len(pair.prompt), len(pair.answer))

    def room(self, lm: "LanguageModel", prompt: int) -> int:
        """See `Layout`."""
        return lm.max_length

    def last_of_prompt(self, lm: "LanguageModel", layer: int, prompt: int) -> int:
        """In the encoder the prompt's last token; in the decoder the start token, where nothing is written yet."""
        return prompt - 1 if lm.site(layer).stack == "encoder" else 0

    def feed(self, lm: "LanguageModel", prompts: Rows, answers: Rows) -> Feed:
        """See `Layout`."""
        fill, start = padding_token(lm.tokenizer), start_token(lm)
        ids, mask = pad(prompts, fill, "right", lm.device)
        written, real = pad([[start, *answer] for answer in answers], fill, "right", lm.device)
        return Feed(_inputs(ids, mask, written, real), [0] * len(prompts))

    def predict(self, lm: "LanguageModel", pairs: Sequence[Pair], padding: Side = "left") -> Prediction:
        """See `Layout`; rows of both stacks are filled up on the right."""
        answers = [pair.answer for pair in pairs]
        feed = self.feed(lm, [pair.prompt for pair in pairs], [answer[:-1] for answer in answers])
        labels, _ = pad(answers, padding_token(lm.tokenizer), "right", lm.device)
        logits = lm.model(**feed.inputs, use_cache=False).logits  # (b, w, v)
        return Prediction(logits, labels, [slice(0, len(answer)) for answer in answers])

    def begin(self, lm: "LanguageModel", prompts: Rows) -> Writing:
        """See `Layout`."""
        return Seq2SeqWriting(lm, prompts)

    def text_inputs(self, lm: "LanguageModel", batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Layout`; a text without labels is cut in the middle, and both stacks read equally many tokens."""
        known = self.training_inputs(lm, batch)
        labels = known.pop("labels")
        written = known["decoder_input_ids"]
        real = (labels != IGNORED).long()  # a decoder's token counts where something follows it
        real[:, 0] = 1
        return _inputs(known["input_ids"], known["attention_mask"], written, real)

    def training_inputs(self, lm: "LanguageModel", batch: Mapping[str, Tensor]) -> dict[str, Any]:
        """See `Layout`; padding among labels is ignored, where another token ends texts."""
        ids, mask, labels = batch["input_ids"], batch.get("attention_mask"), batch.get("labels")
        mask = torch.ones_like(ids) if mask is None else mask
        if labels is None:
            halves = _halves(lm, ids, mask)
            ids, mask, labels = halves["input_ids"], halves["attention_mask"], halves["labels"]
        fill = lm.tokenizer.pad_token_id
        if fill is not None and fill != lm.tokenizer.eos_token_id:
            labels = labels.masked_fill(labels == fill, IGNORED)
        written = torch.cat([torch.full_like(labels[:, :1], start_token(lm)), labels[:, :-1]], dim=1)
        written = written.masked_fill(written == IGNORED, padding_token(lm.tokenizer))
        return {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": written, "labels": labels}

    def training_rows(self, lm: "LanguageModel", rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """Each row cut in the middle: the encoder reads the first half, the decoder says the second."""
        return _halves(lm, rows["input_ids"], rows["attention_mask"])

    def new_tokens(self, output: Tensor, width: int) -> Tensor:
        """See `Layout`; the start token comes first."""
        return output[:, 1:]

    def generation_settings(self, lm: "LanguageModel") -> dict[str, Any]:
        """See `Layout`."""
        return {"decoder_start_token_id": start_token(lm)}


class Seq2SeqWriting(Writing):
    """Answers that a decoder writes to prompts that its encoder has read once.

    Args:
        lm: The language model, borrowed.
        prompts: Tokens of the prompts.
    """

    def __init__(self, lm: "LanguageModel", prompts: Rows) -> None:
        self._model = lm.model
        ids, self._mask = pad(prompts, padding_token(lm.tokenizer), "right", lm.device)  # (b, t)
        self._read: Tensor = lm.model.get_encoder()(input_ids=ids, attention_mask=self._mask).last_hidden_state
        config = lm.model.get_decoder().config
        self._cache = EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config))
        self._ids = torch.full_like(ids[:, :1], start_token(lm))  # (b, 1)

    def logits(self) -> Tensor:
        """See `Writing`."""
        output = self._model(
            encoder_outputs=BaseModelOutput(last_hidden_state=self._read),
            attention_mask=self._mask,
            decoder_input_ids=self._ids,
            past_key_values=self._cache,
            use_cache=True,
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def keep(self, rows: Tensor) -> None:
        """See `Writing`."""
        self._cache.batch_select_indices(rows)
        self._read, self._mask = self._read[rows], self._mask[rows]

    def write(self, tokens: Tensor) -> None:
        """See `Writing`."""
        self._ids = tokens[:, None]  # (b, 1)


def _inputs(ids: Tensor, mask: Tensor, written: Tensor, real: Tensor) -> dict[str, Tensor]:
    """Arguments of a forward pass of both stacks."""
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "decoder_input_ids": written,
        "decoder_attention_mask": real,
    }


def _halves(lm: "LanguageModel", ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Texts cut in the middle, the last of an odd number of tokens left out; a single token is read and not followed.

    Args:
        lm: The language model.
        ids: Tokens (b, t).
        mask: 1 where there is a token of the text (b, t).

    Returns:
        `input_ids`, `attention_mask` and `labels` (b, t'), on the device of the tokens.
    """
    rows = [row[known > 0].tolist() for row, known in zip(ids, mask, strict=True)]
    cuts = [max(1, len(row) // 2) for row in rows]
    fill = padding_token(lm.tokenizer)
    read, real = pad([row[:cut] for row, cut in zip(rows, cuts, strict=True)], fill, "right", ids.device)
    said, follows = pad([row[cut : 2 * cut] for row, cut in zip(rows, cuts, strict=True)], fill, "right", ids.device)
    labels = torch.full_like(read, IGNORED)
    labels[:, : said.shape[1]] = said.masked_fill(follows == 0, IGNORED)
    return {"input_ids": read, "attention_mask": real, "labels": labels}
