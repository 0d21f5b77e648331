r"""WISE's router: how far a side memory would move a prompt, and which memory answers it.

$$\Delta(x) = \frac{1}{|x|} \sum_{t \in x} \lVert \sigma(W k_t) - \sigma(W' k_t) \rVert_2$$

over the tokens t of the prompt x, with the model's own activation function \(\sigma\). A memory is a candidate if
\(\Delta\) reaches a share of its threshold; among candidates the one with the largest \(\Delta\) answers, and the main
memory where there is none. A row keeps to its memory while the model writes behind the prompt. Source: Wang et al. 2024
(arXiv 2405.14768), equations 3, 5 and 11.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.activations import ACT2FN

from lightning_edit.editors.wise.side import Side
from lightning_edit.errors import EditError
from lightning_edit.model.prompt_scope import Window

Activation = Callable[[Tensor], Tensor]


def activation_of(model: Any) -> Activation:
    """The activation function of a model's FFN.

    Args:
        model: A transformers model.
    """
    config = model.config.get_text_config()
    for name in ("hidden_activation", "hidden_act", "activation_function", "dense_act_fn"):
        if (found := getattr(config, name, None)) is not None:
            function: Activation = ACT2FN[found]
            return function
    raise EditError(
        f"the configuration of {type(model).__name__} names no activation function; expected hidden_act or "
        "activation_function there. Set it to one that transformers knows, such as 'silu'."
    )


def activation_difference(y: Tensor, other: Tensor, prompt: Tensor, activation: Activation) -> Tensor:
    """How far two outputs of a projection are apart behind the activation function (b,).

    Args:
        y: Output of the main memory (b, t, d).
        other: Output of a side memory (b, t, d).
        prompt: The tokens that count (b, t).
        activation: The model's activation function.
    """
    wide = y.dtype if y.dtype == torch.float64 else torch.float32
    apart = (activation(y.to(wide)) - activation(other.to(wide))).norm(dim=-1)  # (b, t)
    mean: Tensor = (apart * prompt).sum(-1) / prompt.sum(-1).clamp_min(1)
    return mean


def route(differences: Tensor, thresholds: Sequence[float], ratio: float) -> Tensor:
    """The memory that answers each prompt (b,); -1 for the main one.

    Args:
        differences: Activation differences (m, b).
        thresholds: Smallest activation difference of each memory's edits (m,).
        ratio: Share of it from which on a prompt is routed there.
    """
    bounds = ratio * torch.tensor(thresholds, dtype=differences.dtype, device=differences.device)
    scores = differences.where(differences >= bounds[:, None], -torch.inf)
    best, index = scores.max(0)
    return torch.where(best > -torch.inf, index, -1)


@dataclass(frozen=True, slots=True)
class Router:
    """The side memories of one moment on the model's device.

    Args:
        side: The side memories.
        tasks: Task vectors of those that prompts may be routed to.
        ratio: Share of a threshold from which on a prompt is routed to a memory.
        activation: The model's activation function.
    """

    side: Side
    tasks: list[Tensor]
    ratio: float
    activation: Activation

    def answer(self, x: Tensor, y: Tensor, window: Window, owner: object) -> Tensor | None:
        """Each row's output out of the memory that it was routed to; None where all stay with the main one.

        Args:
            x: Input of the projection (b, t, n).
            y: Its output (b, t, d).
            window: Whose tokens they are.
            owner: Whom the window remembers the decision for.
        """
        chosen = window.recall(owner)
        if bool(window.prompt.any()):
            chosen = self._decide(x, y, window, chosen)
            window.remember(owner, chosen)
        if chosen is None or not bool((chosen >= 0).any()):
            return None
        out = y.clone()
        for index in chosen.unique().tolist():
            if index >= 0:
                rows = chosen == index
                out[rows] = add_task(x[rows], y[rows], self.tasks[index])
        return out

    def _decide(self, x: Tensor, y: Tensor, window: Window, before: Tensor | None) -> Tensor:
        """The memory of each row whose prompt is here, and of the others what it was (b,)."""
        prompt = window.prompt.to(y.device)
        here = prompt.any(-1)
        if bool((here & (window.last.to(y.device) < 0)).any()):
            raise EditError(
                "a prompt enters the model in several pieces, but is routed as a whole; expected all of its tokens in "
                "one forward. Leave out prefill_chunk_size."
            )
        others = (add_task(x, y, task) for task in self.tasks)
        differences = torch.stack([activation_difference(y, other, prompt, self.activation) for other in others])
        thresholds = [memory.threshold for memory in self.side.memories]
        return torch.where(here, route(differences, thresholds, self.ratio), -1 if before is None else before)


def add_task(x: Tensor, y: Tensor, task: Tensor) -> Tensor:
    """Output of a side memory: the main one's, and what the task vector adds (b, t, d).

    Args:
        x: Input of the projection (b, t, n).
        y: Output of the main memory (b, t, d).
        task: Task vector (d, n).
    """
    return y + (x.to(task.dtype) @ task.T).to(y)
