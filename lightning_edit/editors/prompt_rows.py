"""Requests as token rows that know where their prompt ends, and how well a model says what should follow.

The prompt's tokens are those that the model reads when it is asked, and the target's those that follow them in the
text `prompt + " " + target`, or, where a token of that text crosses the border, those of the target by itself. An
encoder-decoder is asked in its encoder and answers in its decoder. Rows are padded on the right. This file runs the
model; it moves nothing in it.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_edit.chat import Chat, render
from lightning_edit.decoding import check_room
from lightning_edit.errors import RequestError
from lightning_edit.model.ffn_parts import Part, find_part
from lightning_edit.model.interception import Intercept
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.skipping import skip


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A prompt with what should follow it.

    Args:
        prompt: Its tokens.
        target: Tokens of the target; none for a text that is only read.
    """

    prompt: tuple[int, ...]
    target: tuple[int, ...] = ()


def prompt_rows(
    lm: LanguageModel, prompts: Sequence[str], targets: Sequence[str], chat: Chat | None = None
) -> list[PromptRow]:
    """Tokenise prompts and targets.

    Args:
        lm: The language model whose tokenizer is used.
        prompts: The prompts.
        targets: What should follow each.
        chat: Put the prompts through the tokenizer's chat template.
    """
    heads, joint = (list(prompts), " ") if chat is None else (render(lm.tokenizer, prompts, chat), "")
    texts = [f"{head}{joint}{target}" for head, target in zip(heads, targets, strict=True)]
    for text, target in zip(texts, targets, strict=True):
        if not target.strip():
            raise RequestError(f"found no target in {text!r}; expected some text. Give a target.")
    pairs, closing = lm.layout.split_as_asked(lm, heads, targets, joint, chat is None), lm.layout.closing(lm)
    check_room(lm, [(text, lm.layout.size(pair)) for text, pair in zip(texts, pairs, strict=True)])
    return [PromptRow(tuple(pair.prompt), (*pair.answer, *closing)) for pair in pairs]


class PromptBatch:
    """Some rows that are run again and again, while what happens at one layer changes.

    The blocks below that layer are run once, where hidden states are all that a block gets from below.

    Args:
        lm: The language model, borrowed.
        rows: The b rows.
        layer: The layer.
    """

    def __init__(self, lm: LanguageModel, rows: Sequence[PromptRow], layer: int) -> None:
        self.lm = lm
        self._below = [] if lm.layout.separate else [lm.block(index) for index in range(layer)]
        self._hidden: Tensor | tuple[Tensor] | None = None
        self._prompts = [len(row.prompt) for row in rows]
        feed = lm.layout.feed(lm, [row.prompt for row in rows], [row.target for row in rows])
        self._inputs = feed.inputs
        wanted = [
            (index, start + place, token)
            for index, (row, start) in enumerate(zip(rows, feed.starts, strict=True))
            for place, token in enumerate(row.target)
        ]
        self._rows, self._places, self._labels = torch.tensor(wanted, device=lm.device).view(-1, 3).T  # (s,) each
        self._lengths = torch.tensor([len(row.target) for row in rows], device=lm.device)  # (b,)

    def losses(self) -> Tensor:
        r"""Loss of each row's target, the mean over its tokens; a row without a target has loss 0.

        $$L = -\frac{1}{|y|} \sum_t \log p(y_t \mid x, y_{<t})$$

        Returns:
            Losses (b,), in float32, or float64 if the model is.
        """
        logits = self._run().logits  # (b, t, v)
        rows, places = self._rows.to(logits.device), self._places.to(logits.device)
        found = logits[rows, places]  # (s, v)
        log_p = (found if found.dtype == torch.float64 else found.float()).log_softmax(-1)
        right = log_p.gather(1, self._labels.to(logits.device)[:, None])[:, 0]
        sums = torch.zeros(len(self._lengths), dtype=log_p.dtype, device=log_p.device)
        losses: Tensor = sums.index_add(0, rows, -right) / self._lengths.to(log_p.device).clamp_min(1)
        return losses

    def _run(self) -> Any:
        """One forward; what the blocks below put out is kept."""
        with ExitStack() as stack:
            stack.enter_context(self.lm.scope.announce(self._prompts))
            if self._hidden is not None:
                bare, wrapped = _bare(self._hidden).clone(), isinstance(self._hidden, tuple)  # some blocks add to it
                stack.enter_context(skip(self._below, (bare,) if wrapped else bare))
            elif self._below:
                stack.callback(self._below[-1].register_forward_hook(self._keep).remove)
            return self.lm.model(**self._inputs, use_cache=False)

    def _keep(self, module: nn.Module, args: Any, output: Any) -> None:
        hidden = _bare(output).detach().clone()
        self._hidden = (hidden,) if isinstance(output, tuple) else hidden


def read_queries(
    lm: LanguageModel, prompts: Sequence[tuple[int, ...]], layer: int, part: Part = "down", batch_size: int = 32
) -> Tensor:
    """Inputs of a layer's FFN projection at each prompt's last token.

    Args:
        lm: The language model, borrowed.
        prompts: Tokens of m prompts.
        layer: The layer.
        part: Which of its projections.
        batch_size: Prompts in one forward.

    Returns:
        Queries (m, n) in float32 (float64 if the model is), in main memory.
    """
    place, order = find_part(lm, layer, part), sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    found = torch.zeros(len(prompts), place.inputs, dtype=_wide(lm.dtype))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        feed = lm.layout.feed(lm, [prompts[index] for index in chosen], [()] * len(chosen))
        last = torch.tensor([lm.layout.last_of_prompt(lm, layer, len(prompts[index])) for index in chosen])
        with Intercept(lm.model, inputs=[place.path], stop=True) as seen:
            lm.model(**feed.inputs, use_cache=False)
        inputs = seen.inputs[place.path]
        inputs = inputs.view(len(chosen), -1, inputs.shape[-1])
        found[chosen] = inputs[torch.arange(len(chosen)), last.to(inputs.device)].to(found)
    return found


def _wide(dtype: torch.dtype) -> torch.dtype:
    """Float64 stays, everything else becomes float32."""
    return dtype if dtype == torch.float64 else torch.float32


def _bare(output: Any) -> Tensor:
    """A block's hidden states, out of the tuple that some put out."""
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden
