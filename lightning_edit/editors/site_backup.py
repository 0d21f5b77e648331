"""What a site has to go back to when an operation fails, and the name of a weight by its bits.

Plain data. This file moves no weights.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_edit.algebra.packing import Kept


def fingerprint(weight: Tensor) -> str:
    """sha256 of a weight's bits.

    Args:
        weight: A matrix.
    """
    return hashlib.sha256(weight.detach().cpu().contiguous().view(torch.uint8).numpy().data).hexdigest()


@dataclass(frozen=True, slots=True)
class SiteBackup:
    """Everything that an operation on a site may change.

    Args:
        weight: The parameter (d, n), a copy.
        ledger: The ledger.
        last: The ledger when the weight was deployed last.
        deployed: What was deployed last.
        pending: What the last deployment still owed.
        ignored: Drift that is ignored.
        origin: The weight before anything was absorbed.
    """

    weight: Tensor
    ledger: Kept
    last: Kept
    deployed: Tensor
    pending: float
    ignored: Tensor | None
    origin: Tensor | None
