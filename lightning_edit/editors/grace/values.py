"""GRACE's values: the output of one projection that makes the model say a target.

Many values are found in one graph. Each row's loss hangs on its own value alone, and Adam treats every number by
itself, so a value is what it would be if it were found alone. This file knows losses and steps, and no codebook.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from lightning_edit.editors.forward_settings import GraceSettings
from lightning_edit.editors.prompt_rows import PromptBatch, PromptRow
from lightning_edit.errors import EditError
from lightning_edit.model.language_model import LanguageModel

Teaching = Callable[[Tensor], AbstractContextManager[None]]
"""While it is entered, each row's output is replaced by its value (b, d)."""


def find_values(
    lm: LanguageModel, rows: Sequence[PromptRow], start: Tensor, settings: GraceSettings, teaching: Teaching
) -> tuple[Tensor, Tensor]:
    """Take Adam's steps on one value a row.

    Args:
        lm: The language model, borrowed.
        rows: The b rows.
        start: Where the values start (b, d).
        settings: Learning rate, steps, and the loss below which a value stays as it is.
        teaching: Puts values into the forward pass.

    Returns:
        The values (b, d) and their rows' losses (b,).
    """
    values = start.to(lm.device).clone().requires_grad_()
    adam = torch.optim.Adam([values], lr=settings.lr)
    batch = PromptBatch(lm, rows, settings.layer)
    found = torch.zeros(len(rows), dtype=torch.bool, device=values.device)
    for _ in lm.progress.each(range(settings.steps)):
        with torch.enable_grad(), teaching(values):
            losses = batch.losses().to(values.device)
            found |= losses.detach() < settings.stop_loss
            if found.all():
                break
            values.grad = torch.autograd.grad(losses[~found].sum(), values)[0]
        kept = values.detach()[found].clone()  # Adam's momentum would carry them on
        adam.step()
        with torch.no_grad():
            values[found] = kept
    values = values.detach()
    with teaching(values):
        losses = batch.losses()
    if not (values.isfinite().all() and losses.isfinite().all()):
        raise EditError(
            f"values or losses are not finite after {settings.steps} steps at lr={settings.lr}; expected numbers. "
            "Take a smaller learning rate, and check that the model's own answers are finite."
        )
    return values.cpu(), losses.cpu()


def cold_start(names: Sequence[str], width: int, dtype: torch.dtype, seed: int) -> Tensor:
    """Random numbers in [0, 1), each row's from the seed and the request's id alone (b, d).

    Args:
        names: Ids of the requests.
        width: Length d of a value.
        dtype: Precision of the values.
        seed: The editor's seed.
    """
    rows = []
    for name in names:
        digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=4).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest))
        rows.append(torch.rand(width, generator=generator, dtype=torch.float64).to(dtype))
    return torch.stack(rows)
