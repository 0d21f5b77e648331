r"""How WISE teaches one request to its side memory.

$$L = \overline{-\log p(y \mid x)} + \operatorname{mean}_+(\Delta_u - \Delta_x + \gamma) +
\operatorname{mean}_+(\Delta_u - \alpha) + \operatorname{mean}_+(\beta - \Delta_x)$$

with the activation differences of the request's prompts, \(\Delta_x\), and of unrelated texts, \(\Delta_u\), and the
mean over those entries that are above 0. Each step is one of gradient descent on the entries of the shard's random
mask, weight decay included; then every entry is brought back to within the norm constraint of the main memory. Source:
Wang et al. 2024 (arXiv 2405.14768), equations 4 to 8, and its public code for decay, constraint and stop.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_edit.editors.forward_settings import WiseSettings
from lightning_edit.editors.prompt_rows import PromptBatch, PromptRow
from lightning_edit.errors import EditError
from lightning_edit.model.language_model import LanguageModel


@dataclass(slots=True)
class Trial:
    """A task vector that is tried in the forward pass, and what the router would see of it.

    Args:
        task: The task vector (d, n), on the model's device.
        differences: Activation difference of each row (b,), after a forward.
    """

    task: Tensor
    differences: Tensor = field(default_factory=lambda: torch.zeros(0))


Trying = Callable[[Trial], AbstractContextManager[None]]
"""While it is entered, every row is answered by the trial's memory."""


def margin_loss(edited: Tensor, unrelated: Tensor, alpha: float, beta: float, gamma: float) -> Tensor:
    """The three margins of the router.

    Args:
        edited: Activation differences of the edited prompts (b,).
        unrelated: Those of unrelated texts (u,).
        alpha: Bound on the latter.
        beta: What the former shall reach.
        gamma: How far each of the former shall be above each of the latter.
    """
    gaps = (unrelated[:, None] - edited + gamma, unrelated - alpha, beta - edited)
    positive = (gap.clamp_min(0).sum() / (gap > 0).sum().clamp_min(1) for gap in gaps)
    return sum(positive, start=torch.zeros((), dtype=edited.dtype, device=edited.device))


def shard_mask(task: Tensor, density: float, shard: int, seed: int) -> Tensor:
    """The entries that a shard may change, on the task vector's device.

    Args:
        task: A task vector (d, n).
        density: Their share of all.
        shard: Number of the shard.
        seed: The editor's seed.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + shard)
    return (torch.rand(task.shape, generator=generator) < density).to(task.device)


def teach(
    lm: LanguageModel,
    rows: Sequence[PromptRow],
    unrelated: Sequence[PromptRow],
    task: Tensor,
    mask: Tensor,
    main: Tensor,
    settings: WiseSettings,
    trying: Trying,
) -> tuple[Tensor, float, float]:
    """Teach one request.

    Args:
        lm: The language model, borrowed.
        rows: The request's prompts, behind several texts, with its target.
        unrelated: Texts that have nothing to do with it.
        task: The task vector to start from (d, n), on the model's device.
        mask: The entries that may change (d, n).
        main: The main memory's weight (d, n).
        settings: Learning rate, margins, bounds.
        trying: Puts a task vector into the forward pass.

    Returns:
        The new task vector, the loss on the target and the mean activation difference of the request's prompts.
    """
    batch, count = PromptBatch(lm, [*rows, *unrelated], settings.layer), len(rows)
    last, task = float("inf"), task.clone()
    for _ in lm.progress.each(range(settings.steps)):
        trial = Trial(task.requires_grad_())
        with torch.enable_grad(), trying(trial):
            said = batch.losses()[:count].mean()
            inside, outside = trial.differences[:count], trial.differences[count:]
            loss = said + margin_loss(inside, outside, settings.alpha, settings.beta, settings.gamma).to(said)
            value = _finite(loss.detach(), settings)
            if value <= settings.stop_loss and abs(last - value) <= settings.stop_change:
                break
            gradient = torch.autograd.grad(loss, task)[0]
        last, task = value, task.detach()
        step = settings.lr * (gradient + settings.weight_decay * (main + task))
        task = (task - torch.where(mask, step, 0)).clamp(-settings.norm_constraint, settings.norm_constraint)
    trial = Trial(task.detach())
    with trying(trial):
        said = batch.losses()[:count].mean()
    return trial.task, _finite(said, settings), _finite(trial.differences[:count].mean(), settings)


def _finite(loss: Tensor, settings: WiseSettings) -> float:
    """A loss or activation difference as a number, if it is one."""
    if not bool(loss.isfinite()):
        raise EditError(
            f"the loss is not finite at lr={settings.lr}; expected a number. Take a smaller learning rate, and check "
            "that the model's own answers are finite."
        )
    return float(loss)
