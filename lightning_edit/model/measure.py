"""Measuring on the live model what the table of architectures does not say.

This file knows how to ask a block whether it passes its projection's output on unchanged. It runs two tokens through
the model and leaves no trace.
"""

import torch
from torch import Tensor, nn

from lightning_edit.errors import SiteError
from lightning_edit.model.borrowing import borrow
from lightning_edit.model.interception import Intercept


def moves_residual(model: nn.Module, projection: str, block: str) -> bool:
    """Whether a change of the projection's output changes the block's output by exactly that.

    Args:
        model: A transformers causal LM.
        projection: Path of the FFN's output projection.
        block: Path of its decoder block.
    """
    device = next(model.parameters()).device
    ids = torch.zeros(1, 2, dtype=torch.long, device=device)
    shift: dict[str, Tensor] = {}

    def push(output: Tensor) -> Tensor:
        noise = torch.randn(output.shape[-1], generator=torch.Generator().manual_seed(0))
        shift["value"] = noise.to(output) * clean.float().square().mean().sqrt().clamp_min(1e-3).to(output)  # (d,)
        return output + shift["value"]

    try:
        with borrow(model):
            with Intercept(model, outputs=[block], stop=True) as seen:
                model(input_ids=ids, use_cache=False)
            clean = seen.outputs[block]
            with Intercept(model, outputs=[block], edits={projection: push}, stop=True) as seen:
                model(input_ids=ids, use_cache=False)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise SiteError(
            f"{type(model).__name__} is not in the table of architectures, and two tokens could not be run through it "
            f"to see how {block} uses {projection}: {error}. Materialise the model before its sites are looked for."
        ) from error
    moved = (seen.outputs[block] - clean).double().reshape(-1, clean.shape[-1])  # (2, d)
    expected = shift["value"].double()
    return bool((moved - expected).norm(dim=-1).max() <= 0.05 * expected.norm())
