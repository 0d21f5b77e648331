"""Writing a model as a folder that plain transformers loads.

This file knows sharded weights, PEFT adapters and tied weights. It leaves the live model as it is.
"""

import copy
from pathlib import Path
from typing import Any

from torch.distributed.tensor import DTensor
from transformers import PreTrainedTokenizerBase

from lightning_edit.model.sites import unwrap


def save_folder(model: Any, tokenizer: PreTrainedTokenizerBase, folder: str | Path, write: bool = True) -> None:
    """Save model and tokenizer; a PEFT adapter is merged into a copy first.

    Sharded weights are gathered, which is a collective: every rank calls, one of them with `write`.

    Args:
        model: The model, possibly wrapped by PEFT or `torch.compile`.
        tokenizer: Its tokenizer.
        folder: Where to write.
        write: Whether this process writes.
    """
    model = getattr(model, "_orig_mod", model)
    if hasattr(model, "merge_and_unload"):
        if not write:
            return
        model = copy.deepcopy(model).merge_and_unload()
    model = unwrap(model)
    weights = {name: _whole(value) for name, value in model.state_dict().items()}
    if write:
        model.save_pretrained(folder, state_dict=weights)
        tokenizer.save_pretrained(folder)


def _whole(value: Any) -> Any:
    return value.full_tensor() if isinstance(value, DTensor) else value
