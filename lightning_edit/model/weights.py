"""Reading and writing one projection's weight, whatever holds it.

This file knows three ways of keeping a matrix: `nn.Linear` (d, n), transformers' `Conv1D` (n, d), and either of them
inside a PEFT wrapper; each as a plain tensor or sharded as a DTensor. It refuses quantised weights, and it never
replaces a parameter: writes are in place, so tied weights, optimizers and compiled graphs keep pointing at it.
"""

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.pytorch_utils import Conv1D

from lightning_edit.errors import SiteError

PACKED = ("qweight", "W_q", "weight_packed", "packed_weight")  # where GPTQ and AWQ, HQQ, compressed-tensors keep codes
QUANTISERS = frozenset({"bitsandbytes", "torchao", "optimum", "hqq"})  # packages whose tensors are codes


def base_layer(projection: nn.Module) -> nn.Module:
    """The module that holds the matrix: what lies under PEFT's wrappers, or the module itself.

    Args:
        projection: A linear module, possibly wrapped by PEFT.
    """
    while hasattr(projection, "get_base_layer"):
        if hasattr(projection, "modules_to_save"):
            raise SiteError(
                "a projection is listed in PEFT's `modules_to_save`, so a copy of it runs instead of the base layer; "
                "expected a plain or LoRA-wrapped projection. Remove it from `modules_to_save`."
            )
        below: nn.Module = projection.get_base_layer()  # type: ignore[operator]
        if below is projection:
            break
        projection = below
    return projection


def is_transposed(projection: nn.Module) -> bool:
    """Whether the weight is kept as (n, d), as Conv1D does.

    Args:
        projection: A linear module, possibly wrapped by PEFT.
    """
    return isinstance(base_layer(projection), Conv1D)


def read_weight(projection: nn.Module) -> Tensor:
    """The weight as a matrix (d, n) in its own dtype, detached.

    A plain tensor comes back as a view, which changes when the parameter does: clone it to keep it. A sharded one is
    gathered, which is a collective: every rank must call.

    Args:
        projection: A linear module, possibly wrapped by PEFT.
    """
    weight = parameter(projection).detach()
    if isinstance(weight, DTensor):
        weight = weight.full_tensor()
    return weight.T if is_transposed(projection) else weight  # (d, n)


def write_weight(projection: nn.Module, value: Tensor) -> None:
    """Write a matrix (d, n) into the parameter, in place, rounded to the parameter's dtype.

    Args:
        projection: A linear module, possibly wrapped by PEFT.
        value: The new weight (d, n); of a sharded one every rank writes its piece of what rank zero gives.
    """
    weight = parameter(projection)
    value = value.detach().T if is_transposed(projection) else value.detach()
    if value.shape != weight.shape:
        raise SiteError(
            f"a weight of shape {tuple(value.shape)} cannot be written into a parameter of shape "
            f"{tuple(weight.shape)}; expected the projection's own (d, n). Read the site with `read_weight` first."
        )
    with torch.no_grad():
        value = value.to(device=weight.device, dtype=weight.dtype)
        if isinstance(weight, DTensor):
            value = distribute_tensor(value.contiguous(), weight.device_mesh, weight.placements)
        weight.copy_(value)


def refuse_quantised(projection: nn.Module) -> None:
    """Refuse a projection that holds codes in the place of numbers: an edit is smaller than the steps between them.

    Args:
        projection: A linear module, possibly wrapped by PEFT.

    Raises:
        SiteError: It is quantised: integers, one-byte floats (which come with scales), packed codes, or a tensor class
            of a quantiser.
    """
    base = base_layer(projection)
    weight = getattr(base, "weight", None)
    if isinstance(weight, Tensor):
        homes = {type(tensor).__module__.split(".")[0] for tensor in (weight, weight.data)}
        coded = not weight.is_floating_point() or weight.dtype.itemsize == 1 or bool(homes & QUANTISERS)
        kind = str(weight.dtype).removeprefix("torch.")
    else:
        kind = next((name for name in PACKED if hasattr(base, name)), "")
        coded = bool(kind)
    if coded:
        raise SiteError(
            f"the weight of {type(base).__name__} is quantised ({kind}); expected a floating-point matrix: an edit "
            "would drown in the quantiser's rounding. Load the model without `quantization_config`, or call "
            "model.dequantize(), edit it, export it merged, and quantise that."
        )


def parameter(projection: nn.Module) -> Tensor:
    """The parameter itself, as it is kept; refuses what holds no editable numbers.

    Args:
        projection: A linear module, possibly wrapped by PEFT.

    Raises:
        SiteError: It is quantised, or holds no matrix, or one without values.
    """
    refuse_quantised(projection)
    weight = getattr(base_layer(projection), "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        raise SiteError(f"{type(projection).__name__} has no weight matrix; expected a linear projection.")
    if weight.is_meta:
        raise SiteError("the weight is on the meta device, so it has no values yet; materialise the model first.")
    return weight
