"""Overrides of a nested configuration: dotted paths, with list items named by index or by class.

Knows dicts, lists and the `class_path`/`init_args` form of LightningCLI. Refuses to know what any setting means.
"""

import copy
from collections.abc import Mapping
from typing import Any

from lightning_edit.errors import EditError

Config = dict[str, Any]


class RecipeError(EditError):
    """A recipe, or an override of one, cannot be used as it stands."""


class MissingItemError(RecipeError):
    """An override names a list item that this configuration does not have."""


def merge(config: Config, overrides: Mapping[str, Any]) -> Config:
    """The configuration with overrides applied; neither argument is changed.

    A key of `overrides` is a dotted path, a value is what stands there from now on: mappings are merged, everything
    else is replaced. Under a list, a key is an index, the class name of an item (`trainer.callbacks.EditMonitor`), or
    `+` to append; None in the place of an item removes it. Arguments of a class need no `init_args` in the path. A
    mapping with another `class_path` replaces the object together with its arguments.

    Args:
        config: Nested configuration, as read from YAML.
        overrides: Dotted paths to new values.

    Example:
        >>> config = {"trainer": {"max_steps": 9, "callbacks": [{"class_path": "a.Edit", "init_args": {"n": 1}}]}}
        >>> merge(config, {"trainer.max_steps": 3, "trainer.callbacks.Edit.n": 5})
        {'trainer': {'max_steps': 3, 'callbacks': [{'class_path': 'a.Edit', 'init_args': {'n': 5}}]}}
        >>> merge(config, {"trainer": {"callbacks": {"Edit": None}}})
        {'trainer': {'max_steps': 9, 'callbacks': []}}
    """
    merged = copy.deepcopy(config)
    for path, value in overrides.items():
        for step in reversed(path.split(".")):
            value = {step: value}
        merged = _patched(merged, value, path)
    return merged


def class_name(item: Any) -> str:
    """Short name of the class that a configuration item builds, or the empty string.

    Args:
        item: A class path, or a mapping that holds one.

    Example:
        >>> class_name({"class_path": "lightning_edit.callbacks.EditMonitor"})
        'EditMonitor'
    """
    path = item.get("class_path") if isinstance(item, Mapping) else item
    return path.rpartition(".")[2] if isinstance(path, str) else ""


def _patched(here: Any, patch: Any, path: str) -> Any:
    """What stands in the place of `here` once `patch` is merged into it."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    if isinstance(here, list):
        return _patched_list(here, patch, path)
    if isinstance(here, str) and here and "class_path" not in patch:
        here = {"class_path": here}
    if not isinstance(here, Mapping):
        here = {}
    if "class_path" in here:
        if set(patch) == {class_name(here)}:  # the class name of a single object names the object
            return _patched(here, patch[class_name(here)], path)
        if class_name(patch) not in ("", class_name(here)):
            here = {}
        patch = _with_init_args(patch)
    return {**here, **{key: _patched(here.get(key), value, path) for key, value in patch.items()}}


def _with_init_args(patch: Mapping[str, Any]) -> Config:
    """The patch of an object, with what is no part of the `class_path` form moved into `init_args`."""
    form = {key: value for key, value in patch.items() if key in ("class_path", "init_args", "dict_kwargs")}
    arguments = {key: value for key, value in patch.items() if key not in form}
    return {**form, "init_args": {**form.get("init_args", {}), **arguments}} if arguments else form


def _patched_list(here: list[Any], patch: Mapping[Any, Any], path: str) -> list[Any]:
    """The list with the named items changed, removed or appended."""
    items: dict[int, Any] = dict(enumerate(here))
    for key, value in patch.items():
        if key == "+":
            items[len(items)] = copy.deepcopy(value)
        elif value is None:
            items[_find(here, str(key), path)] = None
        else:
            index = _find(here, str(key), path)
            items[index] = _patched(items[index], value, path)
    return [item for item in items.values() if item is not None]


def _find(items: list[Any], step: str, path: str) -> int:
    """Index of the item that `step` names by number or by class."""
    names = [class_name(item) or repr(item) for item in items]
    if step.isdigit() and int(step) < len(items):
        return int(step)
    hits = [index for index, name in enumerate(names) if name == step]
    if not hits:
        raise MissingItemError(
            f"override '{path}': found no '{step}' in a list of {len(items)} ({', '.join(names)}); name one of them"
        )
    if len(hits) > 1:
        raise RecipeError(f"override '{path}': found {len(hits)} items of class '{step}'; use an index of {hits}")
    return hits[0]
