"""Options that editors have in common, filled in where an editor knows them and does not set them itself.

Knows names of editors and of their options; it makes no editor.
"""

from collections.abc import Mapping
from typing import Any

from lightning_edit.editors.registry import editor_class, option_names
from lightning_edit.evaluation import AnswerOptions


def as_asked(answers: AnswerOptions) -> dict[str, Any]:
    """Options of editors that go by the prompt, such as GRACE: they have to learn it the way it will be asked.

    Args:
        answers: How the model is asked.

    Example:
        >>> as_asked(AnswerOptions()), as_asked(AnswerOptions(chat=True))
        ({}, {'chat': True})
    """
    if not answers.chat:
        return {}
    return {"chat": True} if answers.system is None else {"chat": True, "system": answers.system}


def fill_in(name: str, options: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
    """Options of an editor with those common ones under them that it knows; a hybrid's two editors are filled in.

    Args:
        name: Name of the editor, or path of its class.
        options: Its own options.
        common: The common ones.

    Example:
        >>> fill_in("grace", {"steps": 10}, {"chat": True, "contexts": 5})
        {'chat': True, 'steps': 10}
    """
    if name != "hybrid":
        return {**{key: value for key, value in common.items() if knows(name, key)}, **options}
    filled = dict(options)
    for part, inner in zip(("editor_options", "memory"), parts_of(name, options), strict=True):
        if own := fill_in(inner, options.get(part) or {}, common):
            filled[part] = own
    return filled


def parts_of(name: str, options: Mapping[str, Any]) -> list[str]:
    """The editor's name; those of its two editors where it is a hybrid.

    Args:
        name: Name of the editor, or path of its class.
        options: Its options.
    """
    both = [str(options.get("editor", "memit")), str((options.get("memory") or {}).get("editor", "scr"))]
    return both if name == "hybrid" else [name]


def knows(name: str, option: str) -> bool:
    """Whether an editor has an option.

    Args:
        name: Name of the editor, or path of its class.
        option: Name of the option.
    """
    known = option_names(editor_class(name))
    return known is None or option in known
