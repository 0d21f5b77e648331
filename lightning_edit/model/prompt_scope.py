"""Where each row's prompt ends: what an editor that acts inside the forward pass has to know.

Such an editor decides row by row, on the prompt alone, and keeps to its decision while the model writes. The text that
enters a forward does not say where the prompt in it ends, and during decoding the prompt is not in it any more. Whoever
runs the model on prompts announces their lengths (`decode`, `sample`, `generate` and the scoring of continuations do),
and says which rows are left when some leave the batch. Without an announcement all tokens of a text are its prompt, so
it ends at the last one that is no padding; what follows on the cache of that forward is no prompt.

An encoder-decoder has two scopes. All that its encoder reads is prompt; in its decoder one token stands for the
prompt, the start token, and all that follows is written.

Hooks are in place only while an editor is there. In train mode there is no scope, and editors of this kind do nothing:
training moves the weights below them. This file knows tokens and rows; it knows no editor.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import Cache

from lightning_edit.errors import EditError


@dataclass(slots=True)
class Prompts:
    """The prompts of one batch, and what editors remember of its rows.

    Args:
        lengths: Tokens of each prompt, padding not counted (b,).
        memory: By editor, a tensor with a row for each prompt (b, ...).
    """

    lengths: Tensor
    memory: dict[object, Tensor] = field(default_factory=dict)

    def take(self, rows: Tensor) -> None:
        """Go on with some rows, in this order; a row may come several times.

        Args:
            rows: Indices of rows.
        """
        self.lengths = self.lengths[rows.to(self.lengths.device)]
        self.memory = {owner: kept[rows.to(kept.device)] for owner, kept in self.memory.items()}


@dataclass(slots=True)
class Window:
    """The tokens of one forward pass.

    Args:
        prompts: Whose tokens they are.
        prompt: Whether a token belongs to its row's prompt (b, t).
        last: Position of the prompt's last token; -1 where it is not among these tokens (b,).
        real: Whether a token is one of the text, and no padding (b, t).
    """

    prompts: Prompts
    prompt: Tensor
    last: Tensor
    real: Tensor

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.last)

    def recall(self, owner: object) -> Tensor | None:
        """What was remembered of the rows.

        Args:
            owner: Who remembered it.
        """
        return self.prompts.memory.get(owner)

    def remember(self, owner: object, rows: Tensor) -> None:
        """Keep something of each row for the tokens to come.

        Args:
            owner: Who remembers it.
            rows: A tensor with a row for each of this batch (b, ...).
        """
        self.prompts.memory[owner] = rows


class PromptScope:
    """Tells hooks inside a stack of blocks about the tokens that are being run.

    Args:
        model: The transformers model, whose decoder is meant, or else the stack itself.
        length: Tokens that stand for each row's prompt, where these are the same whatever is asked.

    Attributes:
        window: The tokens of the forward that is running; None outside of one, in train mode, and while nobody listens.
    """

    def __init__(self, model: Any, stack: nn.Module | None = None, length: int | None = None) -> None:
        decoder: nn.Module = model.get_decoder() if hasattr(model, "get_decoder") else model
        self._decoder, self._length = decoder if stack is None else stack, length
        self._users: list[object] = []
        self._handles: list[Any] = []
        self._announced: Prompts | None = None
        self._cached: WeakKeyDictionary[Cache, Prompts] = WeakKeyDictionary()
        self.window: Window | None = None

    # -- for whoever runs the model --------------------------------------------------------------------------------

    @contextmanager
    def announce(self, lengths: Tensor | Sequence[int]) -> Iterator[None]:
        """The forwards inside are about these prompts and what is written behind them.

        Where rows are repeated, as beam search and several samples of one prompt do, copies stand side by side.

        Args:
            lengths: Tokens of each row's prompt, padding not counted (b,).
        """
        before = self._announced
        self._announced = self._told(torch.as_tensor(lengths))
        try:
            yield
        finally:
            self._announced = before

    def keep(self, rows: Tensor) -> None:
        """Only some of the announced rows are left.

        Args:
            rows: Their indices, in the order in which they go on.
        """
        if self._announced is not None:
            self._announced.take(rows)

    # -- for editors -----------------------------------------------------------------------------------------------

    def join(self, user: object) -> None:
        """Keep the window up to date from now on.

        Args:
            user: Who wants it; joining twice is joining once.
        """
        if not any(other is user for other in self._users):
            self._users.append(user)
        if not self._handles:
            begin = self._decoder.register_forward_pre_hook(_before(self), with_kwargs=True)
            end = self._decoder.register_forward_hook(_after(self), always_call=True)
            self._handles = [begin, end]

    def leave(self, user: object) -> None:
        """Stop listening; with the last one, the hooks go.

        Args:
            user: Who had joined.
        """
        self._users = [other for other in self._users if other is not user]
        if not self._users:
            while self._handles:
                self._handles.pop().remove()
            self.window = None

    # -- the hooks -------------------------------------------------------------------------------------------------

    def _open(self, given: dict[str, Any]) -> Window:
        """The window of a forward with these arguments."""
        tokens, cache, mask = _tokens(given), given.get("past_key_values"), given.get("attention_mask")
        rows, width = tokens.shape[:2]
        if mask is None:
            past = 0 if cache is None else int(cache.get_seq_length())
            mask = torch.ones(rows, past + width, dtype=torch.long, device=tokens.device)
        if not isinstance(mask, Tensor) or mask.dim() != 2:
            raise EditError(
                "an editor acts inside this model and needs to know which tokens are padding, but the forward got "
                f"an attention mask of {_shown(mask)}; expected one with rows and tokens. Use a dynamic cache."
            )
        count = mask.cumsum(-1)  # (b, T)
        prompts = self._prompts(cache, count[:, -1])
        if len(prompts.lengths) != rows:
            prompts.take(_repeated(len(prompts.lengths), rows))
        lengths = prompts.lengths.to(mask.device)[:, None]
        inside = (mask > 0) & (count <= lengths)  # (b, T)
        end = (inside & (count == lengths))[:, -width:]
        last = torch.where(end.any(-1), end.long().argmax(-1), -1)
        return Window(prompts, inside[:, -width:], last, mask[:, -width:] > 0)

    def _prompts(self, cache: Any, lengths: Tensor) -> Prompts:
        """The prompts that were announced, else those whose cache this is, else whole texts."""
        if self._announced is not None:
            return self._announced
        known = self._cached.get(cache) if isinstance(cache, Cache) else None
        return known or self._told(lengths)

    def _told(self, lengths: Tensor) -> Prompts:
        """Prompts of these lengths, unless all have one length here."""
        return Prompts(lengths.clone() if self._length is None else torch.full_like(lengths, self._length))

    def _close(self, output: Any) -> None:
        """The forward is over; prompts that nobody announced are kept for as long as their cache is."""
        window, self.window = self.window, None
        cache = getattr(output, "past_key_values", None)
        if window is not None and self._announced is None and isinstance(cache, Cache):
            self._cached[cache] = window.prompts


def _before(scope: PromptScope) -> Any:
    """A pre-hook of the decoder; no bound method, which a copy of the model would copy the scope with."""
    signature = None

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal signature
        signature = signature or inspect.signature(module.forward)
        scope.window = None if module.training else scope._open(signature.bind_partial(*args, **kwargs).arguments)

    return hook


def _after(scope: PromptScope) -> Any:
    """A hook of the decoder, called also when its forward was left by an exception."""

    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        scope._close(output)

    return hook


def _tokens(given: dict[str, Any]) -> Tensor:
    """Token ids (b, t), or their embeddings (b, t, d)."""
    found = [given[name] for name in ("input_ids", "inputs_embeds") if given.get(name) is not None]
    if not found:
        raise EditError(f"the decoder was called with {sorted(given)}; expected input_ids or inputs_embeds among them.")
    tokens: Tensor = found[0]
    return tokens


def _repeated(known: int, rows: int) -> Tensor:
    """Which prompt each row belongs to, where each prompt has equally many rows side by side."""
    if known == 0 or rows % known:
        raise EditError(
            f"a forward of {rows} rows follows on {known} prompts; expected as many, or a multiple. Say which rows "
            "are left with scope.keep(rows), or announce the prompts anew."
        )
    return torch.arange(known).repeat_interleave(rows // known)


def _shown(mask: object) -> str:
    return f"shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
