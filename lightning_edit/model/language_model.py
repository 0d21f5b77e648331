"""A language model, its tokenizer and its sites, as one object that can be read.

`LanguageModel` knows which tokens carry a subject and which activations to read there. It knows no Trainer, no edit and
no statistics, and whatever it runs, the model is afterwards as it was.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from lightning_edit.errors import RequestError, SiteError
from lightning_edit.model.borrowing import borrow
from lightning_edit.model.causal import CausalLayout
from lightning_edit.model.encoding import Encoded, Span, last_token, pad, padding_token, tokenize
from lightning_edit.model.identity import model_identity
from lightning_edit.model.last_tokens import Kind, read_last_tokens
from lightning_edit.model.layout import Layout
from lightning_edit.model.prompt_memory import MemoryPlace
from lightning_edit.model.prompt_scope import PromptScope
from lightning_edit.model.seq2seq import layout_of
from lightning_edit.model.sites import Layer, Site, find_blocks, find_sites, unwrap
from lightning_edit.progress import Progress

BATCH_SIZE = 32


class LanguageModel(MemoryPlace):
    """A transformers causal LM or T5-style encoder-decoder with its tokenizer and its FFN sites.

    Blocks are named by their number, or by their path in the transformers model, such as `decoder.block.3`. The number
    of an encoder-decoder's block counts both stacks, the encoder first.

    Args:
        model: The model, possibly wrapped by PEFT or `torch.compile`; the transformers model inside is what is used.
        tokenizer: Its fast tokenizer.
        projection: Override of the site search, see `find_sites`.
        editable: Whether to look for sites. A model that only answers, such as a judge, needs none, and may then be one
            that is refused otherwise: a mixture of experts, or a quantised one.

    Attributes:
        memory: What an editor that answers out of texts has put between prompts and the model.
        layout: How prompts and answers become the model's inputs, see `model/layout.py`.
        scope: Tells editors that act inside the forward pass where each row's prompt ends.
        progress: Hears how far work on the model has come, see `lightning_edit/progress.py`; nobody by default.
    """

    progress: Progress = Progress()
    layout: Layout = CausalLayout()

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        projection: str | None = None,
        editable: bool = True,
    ) -> None:
        self.model: Any = unwrap(model)
        self.tokenizer: Any = tokenizer
        self.sites: list[Site] = find_sites(self.model, projection) if editable else []
        self.layout = layout_of(self.model)
        counted = editable or self.layout.separate  # an encoder-decoder of an unknown kind cannot be asked either
        self.scope = PromptScope(self.model, length=1 if self.layout.separate else None)
        self._encoder_scope = PromptScope(self.model, self.model.get_encoder()) if self.layout.separate else None
        self.identity: str = model_identity(self.model, self.sites)
        self._blocks = find_blocks(self.model, projection) if counted else []
        self._by_layer: dict[Layer, Site] = {site.layer: site for site in self.sites}
        self._by_layer |= {site.block: site for site in self.sites}

    # -- the parts -------------------------------------------------------------------------------------------------

    @property
    def num_layers(self) -> int:
        """Number of blocks, an encoder's among them."""
        return len(self._blocks)

    @property
    def device(self) -> torch.device:
        """Where input tokens go."""
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights at the first site."""
        return next(self.projection(self.sites[0].layer).parameters()).dtype

    @property
    def max_length(self) -> int:
        """The longest text the model takes, in tokens."""
        config = self.model.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", None) or self.tokenizer.model_max_length)

    def site(self, layer: Layer) -> Site:
        """The site of a layer.

        Args:
            layer: Number of the block, from 0, or its path.
        """
        if not self.sites:
            raise SiteError(
                f"found no sites in {type(self.model).__name__}, expected some: it was wrapped with editable=False. "
                "Wrap it anew with LanguageModel(model, tokenizer)."
            )
        if layer not in self._by_layer:
            known = [site.layer for site in self.sites]
            raise SiteError(
                f"layer {layer} has no site; expected one of {known}, or a path such as {self.sites[-1].block} (the "
                f"model has {self.num_layers} {'' if self.layout.separate else 'decoder '}blocks)."
            )
        return self._by_layer[layer]

    def projection(self, layer: Layer) -> nn.Module:
        """The FFN output projection of a layer, as it runs; under PEFT this is the wrapper.

        Args:
            layer: Number of the block, or its path.
        """
        module: nn.Module = self.model.get_submodule(self.site(layer).name)
        return module

    def block(self, layer: int) -> nn.Module:
        """A block, whose output is the residual stream.

        Args:
            layer: Number of the block.
        """
        module: nn.Module = self.model.get_submodule(self._blocks[layer])
        return module

    def scope_of(self, layer: int) -> PromptScope:
        """What tells editors inside a block where each row's prompt ends.

        Args:
            layer: Number of the block.
        """
        if self._encoder_scope is not None and self.site(layer).stack == "encoder":
            return self._encoder_scope
        return self.scope

    def check_decoder_only(self, who: str) -> None:
        """Refuse an encoder-decoder, where the subject's last token has no key that the text behind it leaves alone.

        Args:
            who: Who needs such a key, for the message.
        """
        if self.layout.separate:
            raise SiteError(
                f"{type(self.model).__name__} is an encoder-decoder: its encoder looks both ways, so what stands at a "
                f"subject's last token hangs on the whole prompt. {who} needs a decoder-only model. Expected, on this "
                "one, an editor without keys of subjects: ft_l, ft_m, lora, adalora, mend, grace, scr or ike."
            )

    @property
    def final_norm(self) -> nn.Module:
        """The norm between the last block and the head; an identity where the model has none."""
        decoder = self.model.get_submodule(self._blocks[-1].rsplit(".", 2)[0])
        norms = [child for child in decoder.children() if "norm" in type(child).__name__.lower()]
        return norms[-1] if norms else nn.Identity()

    @property
    def head(self) -> nn.Module:
        """The map from hidden states to scores of the vocabulary."""
        module: nn.Module = self.model.get_output_embeddings()
        return module

    # -- tokens ----------------------------------------------------------------------------------------------------

    def encode(
        self, texts: Sequence[str], padding_side: Literal["left", "right"] = "right", max_length: int | None = None
    ) -> Encoded:
        """Tokens of a batch of texts, with the tokenizer's leading special tokens, padded, on the model's device.

        Args:
            texts: The texts.
            padding_side: Where to pad; "left" for generation.
            max_length: Keep this many tokens of each text at most, from its beginning.
        """
        rows = tokenize(self.tokenizer, texts, max_length)
        ids, mask = pad([ids for ids, _ in rows], padding_token(self.tokenizer), padding_side, self.device)
        return Encoded(ids, mask, [offsets for _, offsets in rows])

    def subject_positions(self, texts: Sequence[str], spans: Sequence[Span]) -> list[int]:
        """Index, without padding, of each subject's last token.

        Args:
            texts: The texts.
            spans: Characters [start, end) of the subject in each text.
        """
        rows = tokenize(self.tokenizer, texts)
        return [last_token(text, row[1], span) for text, row, span in zip(texts, rows, spans, strict=True)]

    # -- activations -----------------------------------------------------------------------------------------------

    def read_keys(
        self, texts: Sequence[str], spans: Sequence[Span], layers: Sequence[int], batch_size: int = BATCH_SIZE
    ) -> dict[int, Tensor]:
        """Keys: the inputs of the projections at each subject's last token.

        Attention is causal, so each text ends at that token, equal beginnings are run once, and the forward stops
        after the deepest layer.

        Args:
            texts: The texts.
            spans: Characters [start, end) of the subject in each text.
            layers: The layers to read.
            batch_size: Texts in one forward.

        Returns:
            For each layer, keys (m, n) in float32 (float64 if the model is).
        """
        names = {layer: self.site(layer).name for layer in layers}
        return self._read("inputs", names, texts, spans, batch_size)

    def read_hidden(
        self, texts: Sequence[str], spans: Sequence[Span], layers: Sequence[int], batch_size: int = BATCH_SIZE
    ) -> dict[int, Tensor]:
        """The residual stream after each block, at each subject's last token.

        Args:
            texts: The texts.
            spans: Characters [start, end) of the subject in each text.
            layers: The layers to read.
            batch_size: Texts in one forward.

        Returns:
            For each layer, hidden states (m, d) in float32 (float64 if the model is).
        """
        names = {layer: self._blocks[layer] for layer in layers}
        return self._read("outputs", names, texts, spans, batch_size)

    def borrow(self, rng: bool = True) -> AbstractContextManager[None]:
        """Use the model in the middle of anything and give it back as it was, see `borrowing.borrow`.

        Args:
            rng: Restore the random state too.
        """
        return borrow(self.model, rng)

    def _read(
        self, kind: Kind, names: dict[int, str], texts: Sequence[str], spans: Sequence[Span], batch_size: int
    ) -> dict[int, Tensor]:
        if not names or not texts:
            return {layer: torch.zeros(0, self._size(kind, layer), device=self.device) for layer in names}
        rows = self.beginnings(texts, spans)
        pad_id = padding_token(self.tokenizer)
        with self.borrow():
            found = read_last_tokens(self.model, kind, names.values(), rows, pad_id, batch_size, self.progress)
        return {layer: found[name] for layer, name in names.items()}

    def beginnings(self, texts: Sequence[str], spans: Sequence[Span]) -> list[tuple[int, ...]]:
        """Tokens of each text up to its subject's last one.

        Args:
            texts: The texts.
            spans: Characters [start, end) of the subject in each text.
        """
        self.check_decoder_only("Reading keys")
        beginnings = []
        for text, (ids, offsets), span in zip(texts, tokenize(self.tokenizer, texts), spans, strict=True):
            last = last_token(text, offsets, span)
            if last >= self.max_length:
                raise RequestError(
                    f"the subject of {text[:80]!r} ends at token {last + 1}, but the model takes {self.max_length}; "
                    "expected the subject within the model's context. Shorten the prompt."
                )
            beginnings.append(tuple(ids[: last + 1]))
        return beginnings

    def _size(self, kind: Kind, layer: int) -> int:
        site = self._by_layer.get(layer, self.sites[0])
        return site.inner if kind == "inputs" else site.width


def as_language_model(module: object) -> LanguageModel:
    """The language model in whatever the user holds.

    Args:
        module: A `LanguageModel`, or an object with one as its `language_model`, such as `EditableModule`.
    """
    if isinstance(module, LanguageModel):
        return module
    found = getattr(module, "language_model", None)
    if isinstance(found, LanguageModel):
        return found
    raise SiteError(
        f"{type(module).__name__} is no language model with sites; expected an EditableModule or a LanguageModel. "
        "Wrap a transformers model with its tokenizer: LanguageModel(model, tokenizer)."
    )
