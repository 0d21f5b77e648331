"""Writing a model as a folder that plain transformers loads.

This file knows sharded weights, PEFT adapters and tied weights. It leaves the live model as it is: adapters are merged
into copies of the layers that they are in, one layer at a time.
"""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedTokenizerBase

from lightning_edit.model.adapter_hooks import fold_hooks
from lightning_edit.model.sharding import reshard
from lightning_edit.model.sites import unwrap


def save_folder(model: Any, tokenizer: PreTrainedTokenizerBase, folder: str | Path, write: bool = True) -> None:
    """Save model and tokenizer; a PEFT adapter is merged into copies of its layers first.

    Sharded weights are gathered, which is a collective: every rank calls, one of them with `write`.

    Args:
        model: The model, possibly wrapped by PEFT or `torch.compile`, or the one inside PEFT's wrapper.
        tokenizer: Its tokenizer.
        folder: Where to write.
        write: Whether this process writes.
    """
    model = unwrap(model)
    reshard(model)
    weights = {}
    for name, value in model.state_dict().items():
        whole = _whole(value)  # every rank, whoever writes
        if write:
            weights[name] = whole
    if not write:
        return
    for name, layer in _adapted(model):
        inside = [key for key in weights if key.startswith(f"{name}.")]
        parts = {key.removeprefix(f"{name}."): weights.pop(key) for key in inside}
        weights |= {f"{name}.{key}": value for key, value in _merged(layer, parts).items()}
    fold_hooks(model, weights)
    model.save_pretrained(folder, state_dict=weights)
    tokenizer.save_pretrained(folder)


def _whole(value: Any) -> Any:
    return value.full_tensor() if isinstance(value, DTensor) else value


def _adapted(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules that PEFT has put around others, by path; not those within one of them."""
    above = None
    for name, module in model.named_modules():
        if above is not None and name.startswith(above):
            continue
        if hasattr(module, "get_base_layer") or hasattr(module, "unload_and_optionally_merge_module"):
            above = f"{name}."
            yield name, module


def _merged(layer: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of what is under a PEFT layer, with its adapters in them.

    Args:
        layer: The layer; its parameters may be pieces.
        weights: Its whole weights by name.
    """
    instead: dict[int, Any] = {}  # what a copy takes in the place of a piece, which cannot be copied
    for name, value in layer.named_parameters(remove_duplicate=False):
        if isinstance(value, DTensor):
            instead[id(value)] = nn.Parameter(weights[name], requires_grad=False)
    own: Any = copy.deepcopy(layer, instead)
    if hasattr(own, "unload_and_optionally_merge_module"):  # what it wraps is trained as a whole
        own = own.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None)
    else:
        own.merge()
        own = own.get_base_layer()
    merged: dict[str, Tensor] = own.state_dict()
    return merged
