"""Gradient steps on a few parameters until a model says what it should.

Adam with torch's defaults over batches in a fixed order. A request whose loss is below the bound gives no gradient, but
is looked at again in the next pass, since others may spoil it; the descent ends with the first pass in which no request
was above. Steps are made on copies in float32 (float64 if the parameters are), and the model carries them rounded to
its own precision. This file knows losses and steps, not what the parameters are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from lightning_edit.editors.examples import Example, example_losses, make_batches
from lightning_edit.errors import EditError
from lightning_edit.model.language_model import LanguageModel

WIDE = (torch.float32, torch.float64)


@dataclass(frozen=True, slots=True)
class DescentOptions:
    """How to descend.

    Args:
        lr: Learning rate of Adam.
        steps: Passes over all requests at most.
        weight_decay: Adam's weight decay, which is added to the gradient.
        stop_loss: A request is learned when its loss is below this; None makes all passes.
        batch_size: Requests in one step.
    """

    lr: float
    steps: int
    weight_decay: float = 0.0
    stop_loss: float | None = None
    batch_size: int = 16

    def __post_init__(self) -> None:
        """Refuse numbers that no descent can be made with."""
        if self.lr <= 0 or self.steps < 1 or self.batch_size < 1 or self.weight_decay < 0:
            raise EditError(
                f"found lr={self.lr}, steps={self.steps}, batch_size={self.batch_size}, "
                f"weight_decay={self.weight_decay}; expected a learning rate above 0, at least one step and one "
                "request in a batch, and no negative weight decay."
            )

    def total(self, count: int) -> int:
        """Number of optimizer steps for so many requests, if none is learned early.

        Args:
            count: Number of requests.
        """
        return self.steps * -(-count // self.batch_size)


def masters(parameters: Sequence[Tensor]) -> list[Tensor]:
    """Copies of parameters that are precise enough to be stepped on.

    Args:
        parameters: The parameters.
    """
    return [(p.detach().clone() if p.dtype in WIDE else p.detach().float()).requires_grad_() for p in parameters]


def descend(
    lm: LanguageModel,
    examples: Sequence[Example],
    live: Sequence[Tensor],
    stepped: Sequence[Tensor],
    options: DescentOptions,
    after_step: Callable[[int], None] | None = None,
    penalty: Callable[[], Tensor] | None = None,
    first_stop: int = 0,
) -> dict[str, float]:
    """Take steps until every request is learned or all passes are made.

    Args:
        lm: The language model, borrowed by the caller.
        examples: What should be said.
        live: Parameters that the model runs with; they require gradients. Their `.grad` is not touched.
        stepped: What Adam steps on, the live parameters themselves or masters of them, in the same order.
        options: How to descend.
        after_step: Called with the step's number, from 1, when Adam has stepped and the gradients are still there, but
            before the model gets what was stepped on.
        penalty: Added to the loss of every step.
        first_stop: Before so many steps no request counts as learned.

    Returns:
        Loss of each request in the end, by id.
    """
    batches = make_batches(lm, examples, options.batch_size)
    adam = torch.optim.Adam(stepped, lr=options.lr, weight_decay=options.weight_decay)
    number = 0
    with torch.enable_grad():
        for _ in lm.progress.each(range(options.steps)):
            seen: list[Tensor] = []
            moved = False
            for batch in batches:
                losses = example_losses(lm, batch)
                seen.append(losses.detach())
                bound = options.stop_loss if number >= first_stop else None
                above = torch.ones_like(losses, dtype=torch.bool) if bound is None else ~(losses.detach() < bound)
                if not above.any():
                    continue
                loss = losses[above].mean() + (0.0 if penalty is None else penalty())
                _check_finite(loss, examples)
                gradients = torch.autograd.grad(loss, list(live))
                moved, number = True, number + 1
                _step(adam, live, stepped, gradients, None if after_step is None else partial(after_step, number))
            if not moved:
                break
    return final_losses(lm, examples, options.batch_size) if moved else _by_id(examples, torch.cat(seen))


def final_losses(lm: LanguageModel, examples: Sequence[Example], batch_size: int) -> dict[str, float]:
    """Loss of each example as the model is now, by id.

    Args:
        lm: The language model.
        examples: The examples.
        batch_size: Examples in one forward.
    """
    with torch.no_grad():
        batches = make_batches(lm, examples, batch_size)
        losses = torch.cat([example_losses(lm, batch) for batch in batches])
    _check_finite(losses.sum(), examples)
    return _by_id(examples, losses)


def _step(
    adam: torch.optim.Optimizer,
    live: Sequence[Tensor],
    stepped: Sequence[Tensor],
    gradients: Sequence[Tensor],
    after: Callable[[], None] | None,
) -> None:
    """One step of Adam, handed to the model."""
    with torch.no_grad():
        for master, gradient in zip(stepped, gradients, strict=True):
            master.grad = gradient.to(master.dtype)
        adam.step()
        if after is not None:
            after()
        for parameter, master in zip(live, stepped, strict=True):
            master.grad = None
            if parameter is not master:
                parameter.copy_(master)


def _by_id(examples: Sequence[Example], losses: Tensor) -> dict[str, float]:
    return dict(zip([example.id for example in examples], losses.tolist(), strict=True))


def _check_finite(loss: Tensor, examples: Sequence[Example]) -> None:
    if not bool(loss.detach().isfinite()):
        raise EditError(
            f"the loss of {len(examples)} requests ({', '.join(e.id for e in examples[:5])}) is not finite; expected "
            "a finite one. Check that the model's own outputs are finite, or lower the learning rate."
        )
