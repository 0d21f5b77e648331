"""One walk up through the blocks: keys of a layer are read, its weight may change, and the walk goes on from there.

Editing several layers asks for keys at each of them on the model as the layers below have just been made, and for what
comes out at the top. Read from the bottom every time, L layers cost L whole passes. A walk keeps the hidden states that
enter the layer it stands at, so every block below the first edited one runs once, and an edited one twice: before its
weight is known, and after. Attention is causal, so texts end at the token that is read, and equal beginnings run once.
This file knows models and tokens; it knows neither edits nor what the weights become.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_edit.errors import SiteError
from lightning_edit.model.encoding import Span, pad, padding_token
from lightning_edit.model.interception import Intercept
from lightning_edit.model.language_model import BATCH_SIZE, LanguageModel
from lightning_edit.model.skipping import skip

Point = Literal["key", "ffn", "output"]  # the input of a layer's projection, its output, the output of the block


@dataclass(slots=True)
class _Rows:
    """Texts that run together.

    Args:
        ids: Tokens, padded on the right (b, t).
        mask: Attention mask (b, t).
        last: Position of each text's last token (b,).
        hidden: What enters the block the walk stands at (b, t, d); None at the first one.
    """

    ids: Tensor
    mask: Tensor
    last: Tensor
    hidden: Tensor | None = None

    def take(self, rows: Tensor) -> "_Rows":
        """Some of the texts, without the padding that only others need."""
        width = int(self.last[rows].max()) + 1
        hidden = None if self.hidden is None else self.hidden[rows, :width]
        return _Rows(self.ids[rows, :width], self.mask[rows, :width], self.last[rows], hidden)


class Walk:
    """Keys and block outputs of some texts, read on the way up.

    Args:
        lm: The language model.
        texts: The texts.
        spans: Characters [start, end) of the subject in each text.
        batch_size: Texts in one forward.
    """

    def __init__(
        self, lm: LanguageModel, texts: Sequence[str], spans: Sequence[Span], batch_size: int = BATCH_SIZE
    ) -> None:
        self.lm = lm
        self.at = 0  # the block whose input is known
        self._wrapped = False  # whether blocks put out tuples
        self._size = batch_size
        beginnings = lm.beginnings(texts, spans)
        unique = sorted(dict.fromkeys(beginnings), key=lambda ids: (len(ids), ids))
        place = {ids: index for index, ids in enumerate(unique)}
        self._place = torch.tensor([place[ids] for ids in beginnings])  # row of each text
        self._batches = [self._rows(unique[first : first + batch_size]) for first in range(0, len(unique), batch_size)]

    def __len__(self) -> int:
        """Number of texts."""
        return len(self._place)

    def keys(self, layer: int) -> Tensor:
        """Keys of all texts at a layer (m, n), in float32 or better; from here on nothing below it may change.

        Args:
            layer: The layer, not below one that was read before.
        """
        if layer < self.at:
            raise SiteError(f"the walk stands at layer {self.at}, asked for layer {layer}; expected to go upwards.")
        with self.lm.borrow():
            parts = [self._read(batch, layer, "key", go_on=True) for batch in self.lm.progress.each(self._batches)]
            self.at = layer
            return torch.cat(parts)[self._place.to(parts[0].device)]

    def read(self, chosen: Sequence[int], layer: int, point: Point) -> Tensor:
        """Keys or outputs of some texts at a layer (c, n or d), from where the walk stands, which it stays at.

        Args:
            chosen: Indices of texts.
            layer: The layer, not below where the walk stands.
            point: What to read.
        """
        wanted = self._place[list(chosen)]
        rows, back = wanted.unique(return_inverse=True)
        with self.lm.borrow():
            parts = []
            for number, batch in enumerate(self._batches):
                inside = rows[rows // self._size == number] - number * self._size
                if len(inside):
                    parts.append(self._read(batch.take(inside.to(batch.ids.device)), layer, point))
            return torch.cat(parts)[back.to(parts[0].device)]

    def _rows(self, beginnings: Sequence[Sequence[int]]) -> _Rows:
        """A batch of texts."""
        ids, mask = pad(beginnings, padding_token(self.lm.tokenizer), "right", self.lm.device)
        return _Rows(ids, mask, torch.tensor([len(row) - 1 for row in beginnings], device=ids.device))

    def _read(self, rows: _Rows, layer: int, point: Point, go_on: bool = False) -> Tensor:
        """One forward from where the walk stands; the batch goes on to the layer's input if asked to."""
        site, passed = self.lm.site(layer), {}

        def select(value: Tensor) -> Tensor:
            value = value.reshape(*rows.ids.shape, -1)  # OPT's FFN runs on (b t, n)
            last = rows.last.to(value.device)
            value = value[torch.arange(len(last), device=value.device), last]  # (b, n or d)
            return value if value.dtype == torch.float64 else value.float()

        def keep(module: object, args: object, output: Any) -> None:
            self._wrapped = isinstance(output, tuple)
            passed["hidden"] = output[0] if isinstance(output, tuple) else output

        kind, name = "inputs" if point == "key" else "outputs", site.block if point == "output" else site.name
        watch: Any = {kind: {name: select}}
        with ExitStack() as stack:
            if go_on and layer > self.at:
                stack.callback(self.lm.block(layer - 1).register_forward_hook(keep).remove)
            if rows.hidden is not None:
                below = [self.lm.block(i) for i in range(self.at)]
                cached = rows.hidden.clone()  # some blocks add to what they are given
                stack.enter_context(skip(below, (cached,) if self._wrapped else cached))
            with Intercept(self.lm.model, stop=True, **watch) as seen:
                self.lm.model(input_ids=rows.ids, attention_mask=rows.mask, use_cache=False)
        rows.hidden = passed.get("hidden", rows.hidden)
        found: Tensor = getattr(seen, kind)[name]
        return found
