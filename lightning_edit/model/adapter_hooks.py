"""Low-rank changes of linear modules that live beside a model and not in it.

A hook adds `up (down x)` to a module's output. The module tree, its parameters, optimizers and checkpoints stay as they
are, whatever is added, and a module without a hook is untouched, bit for bit. This file knows linear modules by path;
how a change is learned is not its business.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lightning_edit.errors import SiteError
from lightning_edit.model.weights import base_layer

Factors = tuple[Tensor, Tensor]  # down (r, n), up (d, r)


class LowRankHook:
    """A forward hook that adds `up (down x)`, computed in the factors' precision.

    Args:
        down: From the input to the rank (r, n).
        up: From the rank to the output (d, r).
    """

    def __init__(self, down: Tensor, up: Tensor) -> None:
        self.down, self.up = down, up

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """The output with the change."""
        x: Tensor = args[0]
        if self.down.device != x.device:  # the model has moved
            self.down, self.up = self.down.to(x.device), self.up.to(x.device)
        change: Tensor = (x.to(self.down.dtype) @ self.down.T) @ self.up.T
        return output + change.to(output.dtype)


class AdapterHooks:
    """The hooks of one editor on one model."""

    def __init__(self) -> None:
        self.model: nn.Module | None = None
        self._handles: list[Any] = []

    def place(self, model: nn.Module, factors: Mapping[str, Factors]) -> None:
        """Replace what is there; nothing stays on another model.

        Args:
            model: The transformers model without wrappers.
            factors: Changes by path of the module, in the model's own precision or a wider one.
        """
        modules = {path: base_layer(model.get_submodule(path)) for path in factors}
        self.clear()
        self.model = model
        for path, module in modules.items():
            down, up = (factor.to(_device(module)) for factor in factors[path])
            self._handles.append(module.register_forward_hook(LowRankHook(down, up)))

    def clear(self) -> None:
        """Take all hooks away."""
        while self._handles:
            self._handles.pop().remove()
        self.model = None


def find_linears(model: nn.Module, blocks: Iterable[str], names: Iterable[str]) -> list[str]:
    """Paths of the linear modules in some blocks that have one of some names, in the order of the model.

    Args:
        model: The transformers model without wrappers.
        blocks: Paths of the blocks.
        names: Last parts of paths, such as `q_proj` or `mlp.c_proj`.

    Raises:
        SiteError: If a name is found nowhere.
    """
    wanted, met, seen = tuple(dict.fromkeys(names)), set[str](), dict[str, None]()
    paths = []
    for block in blocks:
        for path, module in model.get_submodule(block).named_modules():
            inside = "base_layer" in path.split(".") or "lora_" in path  # a user's own adapter and what it wraps
            if inside or not isinstance(base_layer(module), nn.Linear | Conv1D):
                continue
            seen[path.rpartition(".")[2]] = None
            if hits := [name for name in wanted if f".{path}".endswith(f".{name}")]:
                met.update(hits)
                paths.append(f"{block}.{path}")
    if missing := [name for name in wanted if name not in met]:
        raise SiteError(
            f"{type(model).__name__} has no linear module named {' or '.join(missing)} in its blocks; expected some of "
            f"{', '.join(seen)}. Name them with modules=[...]."
        )
    return paths


def fold_hooks(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Add what hooks add to a model's outputs to a copy of its weights, so that the copy says what the model says.

    Args:
        model: The transformers model.
        weights: Its weights by the names they have without PEFT's wrappers; entries are replaced, never changed.
    """
    for path, module in model.named_modules():
        name = f"{path}.weight".replace(".base_layer.", ".")
        for hook in module._forward_hooks.values():
            if isinstance(hook, LowRankHook):
                weight = weights[name]
                change = hook.up.double() @ hook.down.double()
                change = (change.T if isinstance(module, Conv1D) else change).to(weight.device)
                weights[name] = (weight.double() + change).to(weight.dtype)


def _device(module: nn.Module) -> torch.device:
    device: torch.device = next(module.parameters()).device
    return device
