"""Who writes a file that several processes have a part in: the first one, while the others wait.

Where the weights are cut into pieces every process takes part in putting them together, so every process gets here, and
may go on to read what was written. Where every process holds the whole model, as under DDP, one of them may export
alone, and nobody waits. This file knows processes; what is written stands elsewhere.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed
from torch import nn
from torch.distributed.tensor import DTensor

from lightning_edit.errors import StateError


def is_first_rank() -> bool:
    """Whether this process is the one that writes files."""
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


@contextmanager
def first_rank_writes(model: nn.Module) -> Iterator[bool]:
    """Whether this process writes what is written inside; a sharded model's processes leave the block together.

    Args:
        model: The model whose weights are written.

    Raises:
        StateError: Another process failed inside, where the model is sharded.
    """
    if not any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        yield is_first_rank()
        return
    error: Exception | None = None
    try:
        yield is_first_rank()
    except Exception as caught:  # told to all processes, then raised
        error = caught
    said: list[str | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(said, None if error is None else f"{type(error).__name__}: {error}")
    if error is not None:
        raise error
    failed = {rank: words for rank, words in enumerate(said) if words is not None}
    if failed:
        raise StateError(
            f"found processes that could not write ({failed}); expected a complete export. Write it again."
        )
