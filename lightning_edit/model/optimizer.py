"""The optimizer of ordinary training: AdamW, with warmup and a cosine if wanted.

This file knows parameters and step counts. It knows no Trainer and no edit.
"""

import math
from typing import Literal

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

Schedule = Literal["constant", "cosine"]


def build_adamw(module: nn.Module, lr: float, weight_decay: float, betas: tuple[float, float]) -> AdamW:
    """AdamW over what is trainable; norms and biases do not decay.

    Args:
        module: The module to train.
        lr: Learning rate.
        weight_decay: Decoupled weight decay of matrices.
        betas: Decay rates of AdamW's moments.
    """
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trainable if parameter.ndim >= 2]
    vectors = [parameter for parameter in trainable if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return AdamW([group for group in groups if group["params"]], lr=lr, betas=betas)


def build_schedule(optimizer: AdamW, warmup: int, schedule: Schedule, total: float) -> LambdaLR:
    r"""Linear warmup, then a constant rate or a cosine to zero.

    $$\eta_t / \eta = \frac{t + 1}{w} \;\text{for}\; t < w, \qquad
    \tfrac{1}{2} \Big(1 + \cos \pi \frac{t - w}{T - w}\Big) \;\text{after}$$

    Args:
        optimizer: The optimizer.
        warmup: Steps w until the full rate is reached.
        schedule: "constant" or "cosine".
        total: Steps T of the whole training; only a cosine needs it.
    """

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if schedule == "constant":
            return 1.0
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warmup) / max(1.0, total - warmup))))

    return LambdaLR(optimizer, factor)
