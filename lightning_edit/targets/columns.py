"""What a target is asked for: options, columns and results.

A column is one key of the ledger: every request whose text is the same up to the subject's last token shares it. This
file holds plain data. It knows no model, no tokenizer and no optimiser.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

from torch import Tensor

from lightning_edit.errors import EditError

Span = tuple[int, int]  # characters [start, end) of the subject in a text
Place = Literal["block", "ffn", "attention"]  # the output of a block, of its FFN, of its attention


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """How block targets are optimised (MEMIT, arXiv 2210.07229, section 4.2; defaults of the public implementations).

    Args:
        lr: Adam's learning rate on the target offset.
        steps: Forward passes at most; the last one only measures, so `steps - 1` updates are made.
        clamp: Bound on the offset's norm, as a multiple of the norm of the hidden state it is added to.
        weight_decay: Weight of `||delta|| / ||h||^2` in the loss.
        kl: Weight of `KL(current || initial)` at the subject's last token of "<subject> is a".
        preserve: Weight of the mean `KL(current || initial)` at the end of the texts that a column preserves.
        stop_loss: A column stops as soon as its loss is below this.
        batch_size: Columns that are optimised in one graph.
        prefix_cache: Keep the attention keys and values of the tokens before the subject's last token, which never
            see the offset, instead of computing them again in every pass.
        places: Where vectors are free, each with a clamp and a decay of its own; the first is the target, the others
            only help to find it (PMET, arXiv 2308.08742: the FFN's output, beside the attention's).
        nll_after: Weight of the likelihood while every target token is the most likely one (PMET's code: 0.1); None
            keeps it at 1.
        kl_after: With `nll_after`, a column stops as soon as its target tokens are the most likely ones and what it
            pays for divergence is not above this.
    """

    lr: float = 0.5
    steps: int = 25
    clamp: float = 0.75
    weight_decay: float = 0.5
    kl: float = 0.0625
    preserve: float = 1.0
    stop_loss: float = 0.05
    batch_size: int = 16
    prefix_cache: bool = True
    places: tuple[Place, ...] = ("block",)
    nll_after: float | None = None
    kl_after: float = 0.01

    def __post_init__(self) -> None:
        """Refuse values that no optimisation can run with."""
        for name, low in (("lr", 0.0), ("clamp", 0.0)):
            if not getattr(self, name) > low:
                raise EditError(f"target option {name}={getattr(self, name)} must be greater than {low:g}.")
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise EditError(f"target option {name}={getattr(self, name)} must be at least 1.")
        for name in ("weight_decay", "kl", "preserve"):
            if getattr(self, name) < 0:
                raise EditError(f"target option {name}={getattr(self, name)} must not be negative.")
        if (self.nll_after or 0) < 0:
            raise EditError(f"target option nll_after={self.nll_after} must not be negative.")
        known = get_args(Place)
        if not self.places or len({*self.places} & {*known}) != len(self.places) or self.places[0] == "attention":
            raise EditError(
                f"target option places={self.places!r}; expected different ones of {known}, the first of them 'block' "
                "or 'ffn', where the edited projection writes."
            )


@dataclass(frozen=True, slots=True)
class TargetPrompt:
    """One text that should be continued by a target.

    Args:
        text: The prompt, possibly behind a context.
        span: Characters of the subject in `text`.
        target: What should follow, without a leading space: the model reads `text + " " + target`.
    """

    text: str
    span: Span
    target: str


@dataclass(slots=True)
class Column:
    """One key and everything that should be said after it.

    Args:
        id: Name of the column, used in messages.
        prompts: The texts whose loss the target minimises; the first is a bare prompt, where the start is read.
        kl_prompt: A text about the subject, with the subject's span, at which the model should stay as it is.
        preserved: More such texts; here it is the prediction at their end that should stay. A text whose prediction is
            the one at the first prompt is left out: what it says is what is being changed.
        z: A target to start from; the hidden state itself where none is given.
        center: What the offset's length is measured from; the hidden state itself where none is given.
    """

    id: str
    prompts: list[TargetPrompt]
    kl_prompt: tuple[str, Span] | None = None
    preserved: list[tuple[str, Span]] = field(default_factory=list)
    z: Tensor | None = None
    center: Tensor | None = None


@dataclass(slots=True)
class Targets:
    """The optimised targets of a list of columns, in its order.

    Args:
        z: Targets (m, d).
        start: Hidden states before the offset (m, d).
        loss: Loss of each column at its last pass (m,).
        steps: Forward passes each column took (m,).
    """

    z: Tensor
    start: Tensor
    loss: Tensor
    steps: Tensor
    ids: list[str] = field(default_factory=list)
