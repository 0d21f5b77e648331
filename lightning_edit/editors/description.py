"""Which editor it is, in words that a file can hold: its name or class, and the options it was made with.

This file knows how an editor is made again. It knows no state and no model.
"""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from lightning_edit.editors.editor import Editor
from lightning_edit.editors.registry import EDITORS, get_editor
from lightning_edit.errors import StateError
from lightning_edit.requests import EditRequest

EDITOR = "__editor__"  # marks an option that is an editor itself


class Unwritable(Exception):
    """An option that no file can hold, and that is named in it instead."""


def describe_editor(editor: Editor) -> dict[str, Any]:
    """Name and options of an editor, as plain values.

    Args:
        editor: The editor.

    Returns:
        `editor`, its name in the registry or the path of its class; `options`; and `unwritable`, the names of options
        that are no plain values, such as a restriction of one's own.
    """
    options: dict[str, Any] = {}
    unwritable: list[str] = []
    for name, value in given_options(editor).items():
        try:
            options[name] = _plain(value)
        except Unwritable:
            unwritable.append(name)
    return {"editor": editor_path(editor), "options": options, "unwritable": unwritable}


def make_editor(described: Mapping[str, Any]) -> Editor:
    """An editor like the one that was described, which has learned nothing.

    Args:
        described: What `describe_editor` gave.

    Raises:
        StateError: One of its options could not be written down.
    """
    if described["unwritable"]:
        raise StateError(
            f"{described['editor']!r} was made with {', '.join(described['unwritable'])}, which no file can hold; "
            "expected an editor made with the same. Pass it as editor=..."
        )
    return get_editor(described["editor"], **{name: _read(value) for name, value in described["options"].items()})


def editor_path(editor: Editor) -> str:
    """The name of an editor in the registry, or the path of its class.

    Args:
        editor: The editor.
    """
    path = f"{type(editor).__module__}.{type(editor).__qualname__}"
    return next((name for name, known in EDITORS.items() if known == path), path)


def given_options(editor: Editor) -> dict[str, Any]:
    """The options that an editor was made with, by name.

    Args:
        editor: The editor.
    """
    args, options = editor.made_with
    signature = inspect.signature(type(editor).__init__)
    bound = dict(signature.bind(editor, *args, **options).arguments)
    for parameter in list(signature.parameters.values()):
        if parameter.kind is parameter.VAR_KEYWORD:
            bound |= bound.pop(parameter.name, {})
    del bound[next(iter(signature.parameters))]  # self
    return bound


def _plain(value: Any) -> Any:
    """An option as JSON can hold it."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, EditRequest):
        return value.to_dict()
    if isinstance(value, Editor):
        described = describe_editor(value)
        if described["unwritable"]:
            raise Unwritable
        return {EDITOR: described}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, Sequence):
        return [_plain(part) for part in value]
    raise Unwritable


def _read(value: Any) -> Any:
    """An option as it was given."""
    if isinstance(value, list):
        return [_read(part) for part in value]
    if not isinstance(value, dict):
        return value
    return make_editor(value[EDITOR]) if EDITOR in value else {key: _read(part) for key, part in value.items()}
