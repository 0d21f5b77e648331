"""Plain states as JSON and safetensors: what stands in two files that anything can read and nothing executes.

Tensors go under a name into one mapping, everything else stays a tree that JSON can hold, tuples, keys that are no text
and numbers that are not finite included. Tensors that share memory are kept once and shared again afterwards. This file
knows no editor.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_edit.errors import StateError

KIND = "__kind__"  # marks what JSON has no form for


class Writer:
    """Turns states into trees, and gathers their tensors.

    Attributes:
        tensors: The tensors by name, contiguous and in main memory.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[tuple[Any, ...], str] = {}
        self._seen: list[Tensor] = []  # so that no address is used twice

    def tree(self, value: Any) -> Any:
        """A value as JSON can hold it.

        Args:
            value: Tensors and plain containers.

        Raises:
            StateError: It holds anything else.
        """
        if isinstance(value, Tensor):
            return {KIND: "tensor", "name": self._name(value)}
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else {KIND: "float", "value": str(value)}
        if isinstance(value, list):
            return [self.tree(part) for part in value]
        if isinstance(value, tuple):
            return {KIND: "tuple", "parts": [self.tree(part) for part in value]}
        if isinstance(value, Mapping):
            if KIND in value or not all(isinstance(key, str) for key in value):
                return {KIND: "dict", "items": [[self.tree(key), self.tree(part)] for key, part in value.items()]}
            return {key: self.tree(part) for key, part in value.items()}
        raise StateError(f"found {type(value).__name__} in a state; expected tensors and plain containers.")

    def _name(self, tensor: Tensor) -> str:
        """The name of a tensor; one of the same memory keeps its name."""
        place = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype, str(tensor.device))
        name = self._names.get(place) if tensor.numel() else None
        if name is None:
            name = self._names[place] = f"t{len(self.tensors)}"
            self._seen.append(tensor)
            self.tensors[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        return name


def read_tree(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The value that a tree stands for.

    Args:
        tree: What `Writer.tree` gave.
        tensors: Its tensors by name.
    """
    if isinstance(tree, list):
        return [read_tree(part, tensors) for part in tree]
    if not isinstance(tree, dict):
        return tree
    kind = tree.get(KIND)
    if kind is None:
        return {key: read_tree(part, tensors) for key, part in tree.items()}
    if kind == "tensor" and tree["name"] in tensors:
        return tensors[tree["name"]]
    if kind == "float":
        return float(tree["value"])
    if kind == "tuple":
        return tuple(read_tree(part, tensors) for part in tree["parts"])
    if kind == "dict":
        return {read_tree(key, tensors): read_tree(part, tensors) for key, part in tree["items"]}
    raise StateError(f"found {tree} in a saved state; expected a tensor that is there, a tuple, a mapping or a number.")
