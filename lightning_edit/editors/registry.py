"""Editors by name, and a user's own by the path of their class.

This file knows names and signatures; what an editor does is its own business.
"""

import difflib
import inspect
from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

from lightning_edit.editors.editor import Editor
from lightning_edit.errors import EditError

EDITORS: Mapping[str, str] = MappingProxyType(
    {
        "memit": "lightning_edit.editors.memit.MEMIT",
        "alphaedit": "lightning_edit.editors.alphaedit.AlphaEdit",
        "memorize_latest": "lightning_edit.editors.memorize_latest.MemorizeLatest",
        "rome": "lightning_edit.editors.rome.ROME",
        "emmet": "lightning_edit.editors.emmet.EMMET",
        "pmet": "lightning_edit.editors.pmet.PMET",
        "rect": "lightning_edit.editors.rect.RECT",
        "prune": "lightning_edit.editors.prune.PRUNE",
        "l1": "lightning_edit.editors.l1.L1",
        "sensitivity_aware": "lightning_edit.editors.sensitivity.SensitivityAware",
        "ft_l": "lightning_edit.editors.fine_tuning.FTL",
        "ft_m": "lightning_edit.editors.fine_tuning.FTM",
        "lora": "lightning_edit.editors.lora.LoRA",
        "adalora": "lightning_edit.editors.adalora.AdaLoRA",
        "mend": "lightning_edit.editors.mend.editor.MEND",
        "scr": "lightning_edit.editors.retrieval.scr.SCR",
        "ike": "lightning_edit.editors.retrieval.ike.IKE",
        "ice": "lightning_edit.editors.retrieval.ike.ICE",
        "hybrid": "lightning_edit.editors.hybrid.Hybrid",
        "grace": "lightning_edit.editors.grace.editor.GRACE",
        "wise": "lightning_edit.editors.wise.editor.WISE",
    }
)


def get_editor(name: str, **options: Any) -> Editor:
    """Make an editor.

    Args:
        name: One of `EDITORS`, such as `memit`, or the path of a class such as `my_package.editors.Mine`.
        options: Its options, see the class.

    Example:
        >>> from lightning_edit import get_editor
        >>> get_editor("memit", aligned=False).history
        'absorbed'
        >>> get_editor("alphaedti")
        Traceback (most recent call last):
        ...
        lightning_edit.errors.EditError: there is no editor 'alphaedti'; did you mean 'alphaedit'? Expected one of
        memit, alphaedit, ..., or the path of a class.
    """
    kind = editor_class(name)
    known = option_names(kind)
    if known is not None:
        for option in options:
            if option not in known and option not in kind.elsewhere:
                raise EditError(
                    f"editor {name!r} has no option {option!r}{_did_you_mean(option, known)} "
                    f"Expected some of {', '.join(known)}."
                )
    editor: Editor = kind(**options)
    return editor


def editor_class(name: str) -> type[Any]:
    """The class behind a name or a path.

    Args:
        name: As for `get_editor`.
    """
    path = EDITORS.get(name.lower(), name)
    if "." not in path:
        raise EditError(
            f"there is no editor {name!r}{_did_you_mean(name, list(EDITORS))} Expected one of {', '.join(EDITORS)}, "
            "or the path of a class."
        )
    module, _, attribute = path.rpartition(".")
    try:
        kind = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise EditError(f"cannot find the editor class {path!r} ({error}); expected package.module.Class.") from error
    if not isinstance(kind, type) or not issubclass(kind, Editor):
        raise EditError(f"{path!r} is no editor class; expected a subclass of Editor, such as ClosedFormEditor.")
    return kind


def option_names(kind: type[Any]) -> list[str] | None:
    """Names of the options of an editor class, its ancestors' included; None where it takes any.

    Args:
        kind: The class.
    """
    names: list[str] = []
    for ancestor in kind.__mro__:
        if "__init__" not in vars(ancestor) or ancestor is object:
            continue
        parameters = list(inspect.signature(vars(ancestor)["__init__"]).parameters.values())[1:]
        names += [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and p.name not in names]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return names
    return None


def _did_you_mean(word: str, known: list[str]) -> str:
    """A guess at what was meant, with the punctuation that leads on."""
    close = difflib.get_close_matches(word.lower(), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ";"
