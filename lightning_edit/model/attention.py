"""Where attention writes into the residual stream: the output projection of a block's attention.

Found by structure, as FFN projections are: by the name of the module, and by which of its linear maps leads onto the
model's width. This file knows how transformers models are built; it reads no weights.
"""

from collections.abc import Iterator

from torch import nn
from transformers.pytorch_utils import Conv1D

from lightning_edit.errors import SiteError
from lightning_edit.model.weights import base_layer, is_transposed

_MARKS = ("attn", "attention")


def is_attention(name: str, module: nn.Module) -> bool:
    """Whether a module is called attention, by its own name or its class's.

    Args:
        name: Its name in its parent.
        module: The module.
    """
    return any(mark in part.lower() for mark in _MARKS for part in (name, type(module).__name__))


def attention_output(block: nn.Module, width: int) -> nn.Module:
    """The output projection of a block's attention, as it runs; under PEFT this is the wrapper.

    Of the linear maps onto the model's width it is the last one: queries, keys and values come before it.

    Args:
        block: A decoder block.
        width: Model width d.

    Raises:
        SiteError: The block has no attention, or no linear map in it leads onto the width.
    """
    for name, module in block.named_modules():
        if not name or not is_attention(name.split(".")[-1], module):
            continue
        onto = [linear for linear in _linears(module) if _rows(linear) == width]
        if onto:
            return onto[-1]
    raise SiteError(
        f"{type(block).__name__} shows no attention with an output projection onto width {width}; expected one, "
        "because this editor frees a vector there. Use an editor that does not, such as memit."
    )


def _linears(module: nn.Module) -> Iterator[nn.Module]:
    """Linear modules in order; PEFT wrappers count as what they wrap."""
    for child in module.children():
        if isinstance(base_layer(child), nn.Linear | Conv1D):
            yield child
        else:
            yield from _linears(child)


def _rows(linear: nn.Module) -> int:
    """The size d of a linear module's output."""
    weight = base_layer(linear).get_parameter("weight")
    return int(weight.shape[1] if is_transposed(linear) else weight.shape[0])
