"""The upper part of a model as a function of the offsets: cached below, run above.

Blocks below the target's place never see an offset, and neither do the tokens before the subject's last one. Both are
computed once, without gradients; every pass then runs the remaining blocks on the remaining tokens, and the head only
where a prediction is scored. This file knows how to run a transformers model piecewise; it knows no loss.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from lightning_edit.model.attention import attention_output
from lightning_edit.model.interception import Intercept
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.skipping import skip
from lightning_edit.targets.columns import Place
from lightning_edit.targets.prefix import cache_prefixes, head_at, pad, run
from lightning_edit.targets.rows import Row


class Tail:
    """Runs what lies above a target, for a batch of rows.

    Args:
        lm: The language model, already borrowed (eval mode, frozen parameters).
        layer: The block that takes the offsets.
        rows: The token rows.
        places: Where in it: at its output (or, where a norm follows the FFN, at the FFN projection's), at the FFN
            projection's output, at the attention projection's.
        prefix_cache: Keep attention keys and values of the tokens before the lookup position. Where the model fills
            no plain cache, every pass runs the whole row instead.
    """

    def __init__(
        self,
        lm: LanguageModel,
        layer: int,
        rows: list[Row],
        places: Sequence[Place] = ("block",),
        prefix_cache: bool = True,
    ) -> None:
        self.lm = lm
        self.block = lm.site(layer).block
        self.places = [_module_at(lm, layer, place) for place in places]
        self.at_block = self.places == [lm.block(layer)]  # then the block itself is skipped, too
        self.below = [lm.block(i) for i in range(layer + 1 if self.at_block else layer)]
        self._lay_out(rows, max(row.lookup for row in rows) if prefix_cache else 0)
        with torch.no_grad():
            self.cache = cache_prefixes(lm, [row.ids[: row.lookup] for row in rows]) if self.prefix else None
            if self.prefix and self.cache is None:  # a model with a cache of its own kind
                self._lay_out(rows, 0)
            self.below_output, self.wrapped, self.start = self._run_below()

    def _lay_out(self, rows: list[Row], prefix: int) -> None:
        """Split rows into a left-padded prefix of `prefix` tokens and a right-padded tail.

        Nothing real ever sees what is padded on its right, so only the left padding needs a mask; a query that sees
        nothing at all (not a number, in some attention kernels) cannot arise.
        """
        device, self.prefix = self.lm.device, prefix
        cut = torch.tensor([row.lookup if prefix else 0 for row in rows], device=device)
        width = max(len(row.ids) - c for row, c in zip(rows, cut.tolist(), strict=True))
        self.ids = pad([row.ids[c:] for row, c in zip(rows, cut.tolist(), strict=True)], width, device)  # (r, a)
        last = torch.tensor([len(row.ids) - 1 for row in rows], device=device)
        self.positions = (cut[:, None] + torch.arange(width, device=device)).minimum(last[:, None])
        seen = torch.arange(prefix + width, device=device) >= (prefix - cut)[:, None]
        self.mask = seen.long()  # (r, p + a)
        self.lookup = torch.tensor([row.lookup for row in rows], device=device) - cut
        self.scored = [[s - c for s in row.scored] for row, c in zip(rows, cut.tolist(), strict=True)]
        self._index()

    def _index(self) -> None:
        """Flat (row, position) pairs of everything that is scored, row by row."""
        device = self.lm.device
        pairs = [(i, s) for i, scored in enumerate(self.scored) for s in scored]
        self.scored_rows, self.scored_positions = torch.tensor(pairs, device=device).T
        self.each = torch.arange(len(self.scored), device=device)

    def _run_below(self) -> tuple[Tensor | None, bool, Tensor]:
        """Hidden states behind the last block below, whether blocks return tuples, and the start values (p, r, d)."""
        seen: dict[int, Any] = {}

        def keep(name: int) -> Any:
            return lambda module, args, output: seen.__setitem__(name, output)

        def keep_start(name: int) -> Any:  # a copy: some blocks add to what a module put out
            return lambda module, args, output: seen.__setitem__(name, self._looked_up(_bare(output)))

        with ExitStack() as stack:
            for i, module in enumerate(self.places):
                stack.callback(module.register_forward_hook(keep_start(i)).remove)
            if self.below:
                stack.callback(self.below[-1].register_forward_hook(keep(-1)).remove)
            stack.enter_context(head_at(self.lm, self.each[:1], self.lookup[:1]))  # where it runs to its end
            with Intercept(self.lm.model, outputs={self.block: _nothing}, stop=True):
                run(self.lm, self.ids, self.mask, self.positions, self._fork())
        start, below = torch.stack([seen[i] for i in range(len(self.places))]), seen.get(-1)
        return (None if below is None else _bare(below)), isinstance(below, tuple), start

    def keep(self, rows: Tensor) -> None:
        """Go on with some rows only.

        Args:
            rows: Indices of the rows to keep, ascending.
        """
        indices = rows.tolist()
        width = 1 + max(max(self.scored[i]) for i in indices)  # later tokens are scored by nobody any more
        self.ids, self.positions = self.ids[rows, :width], self.positions[rows, :width]
        self.mask, self.lookup, self.start = (
            self.mask[rows, : self.prefix + width],
            self.lookup[rows],
            self.start[:, rows],
        )
        if self.below_output is not None:
            self.below_output = self.below_output[rows, :width]
        self.scored = [self.scored[i] for i in indices]
        self.cache = self._fork(rows)
        self._index()

    def logits(self, offset: Tensor) -> Tensor:
        """Scores of the next token at every scored position, rows in order, in float32 or better.

        Args:
            offset: What is added at each place and each row's lookup position (p, r, d).

        Returns:
            Logits (scored positions, vocabulary).
        """
        with ExitStack() as stack:
            if (hidden := self.below_output) is not None:
                hidden = self._inject(hidden, offset[0]) if self.at_block else hidden
                stack.enter_context(skip(self.below, (hidden,) if self.wrapped else hidden))
            if not self.at_block:
                for module, part in zip(self.places, offset.unbind(), strict=True):
                    stack.callback(module.register_forward_hook(self._injecting(part)).remove)
            stack.enter_context(head_at(self.lm, self.scored_rows, self.scored_positions))
            logits = run(self.lm, self.ids, self.mask, self.positions, self._fork())[0]
        return logits if logits.dtype == torch.float64 else logits.float()

    def _injecting(self, offset: Tensor) -> Callable[..., Any]:
        """A hook that adds an offset to what a module puts out."""

        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            added = self._inject(_bare(output), offset)
            return (added, *output[1:]) if isinstance(output, tuple) else added

        return hook

    def _inject(self, hidden: Tensor, offset: Tensor) -> Tensor:
        """Add an offset (r, d) at the lookup positions, in the offset's own precision."""
        by_row = self._by_row(hidden)
        value = self._looked_up(hidden).to(offset.dtype) + offset
        return by_row.index_put((self.each, self.lookup), value.to(hidden.dtype)).view(hidden.shape)

    def _by_row(self, hidden: Tensor) -> Tensor:
        """Hidden states as (r, a, d), whatever shape the module works in."""
        return hidden.view(*self.ids.shape, -1)

    def _looked_up(self, hidden: Tensor) -> Tensor:
        """Hidden states at the lookup positions (r, d), copied."""
        return self._by_row(hidden)[self.each, self.lookup]

    def _fork(self, rows: Tensor | None = None) -> DynamicCache | None:
        """A cache that shares the prefix's tensors; growing it leaves the prefix as it is."""
        if self.cache is None:
            return None
        fork = copy.copy(self.cache)
        fork.layers = [copy.copy(layer) for layer in self.cache.layers]
        if rows is not None:
            fork.batch_select_indices(rows)
        return fork


def _module_at(lm: LanguageModel, layer: int, place: Place) -> nn.Module:
    """The module whose output takes an offset."""
    site = lm.site(layer)
    if place == "attention":
        return attention_output(lm.block(layer), site.width)
    return lm.projection(layer) if place == "ffn" or site.norm_after else lm.block(layer)


def _nothing(hidden: Tensor) -> None:
    """Keep nothing of what is read."""


def _bare(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The hidden states in a module's output."""
    return output[0] if isinstance(output, tuple) else output
