"""A judge by its name, by the path of its class, or as it is.

Knows how configuration files spell objects. Refuses to know what a judge does.
"""

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

from lightning_edit.errors import EditError
from lightning_edit.judges.base import Judge
from lightning_edit.judges.wording import Begins, Contains, ExactMatch

JUDGES: Mapping[str, type[Any]] = MappingProxyType({"exact_match": ExactMatch, "begins": Begins, "contains": Contains})
"""Judges that need nothing but the answer; the one that compares likelihoods reads none, and is not among them."""


def get_judge(judge: Judge | Mapping[str, Any] | str | None) -> Judge | None:
    """A judge, whatever the user gave.

    Args:
        judge: A judge, one of the names in `JUDGES`, or `{"class_path": ..., "init_args": {...}}`, in which arguments
            may be given in the same form; a class path may also name a class method, such as
            `lightning_edit.llm.local.LocalModel.from_pretrained`. None stays None: the exact judge.

    Example:
        >>> get_judge("contains").name
        'contains'
        >>> endpoint = {"class_path": "lightning_edit.llm.Endpoint"}
        >>> endpoint["init_args"] = {"base_url": "http://localhost:8000/v1", "model": "judge-72b"}
        >>> get_judge({"class_path": "lightning_edit.judges.LLMJudge", "init_args": {"assistant": endpoint}}).name
        'llm:judge-72b'
    """
    if isinstance(judge, str):
        if judge not in JUDGES:
            raise EditError(
                f"found judge={judge!r}, expected one of {', '.join(JUDGES)}; others are given as an object or as "
                "{'class_path': ..., 'init_args': {...}}."
            )
        judge = JUDGES[judge]()
    built: Any = instantiate(judge)
    if built is not None and not (callable(getattr(built, "judge", None)) and hasattr(built, "name")):
        raise EditError(f"found {type(built).__name__} as a judge, expected an object with `name` and `judge(cases)`.")
    found: Judge | None = built
    return found


def instantiate(spec: Any) -> Any:
    """Build what a mapping with a `class_path` describes, its arguments first; anything else stays as it is.

    Args:
        spec: A value of a configuration file.
    """
    if not isinstance(spec, Mapping) or "class_path" not in spec:
        return spec
    odd = sorted(set(spec) - {"class_path", "init_args"})
    if odd:
        raise EditError(f"found {odd} beside class_path={spec['class_path']!r}, expected `init_args` at most.")
    arguments = {name: instantiate(value) for name, value in (spec.get("init_args") or {}).items()}
    return _find(str(spec["class_path"]))(**arguments)


def _find(path: str) -> Any:
    """The object at a dotted path: as much of it as can be imported is a module, the rest are attributes."""
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:cut])
        try:
            found: Any = import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
                continue  # this much of the path is no module; a module that fails to import another is a fault
            raise
        try:
            for part in parts[cut:]:
                found = getattr(found, part)
        except AttributeError as error:
            raise EditError(f"found no {path!r} ({error}), expected package.module.Class.") from error
        return found
    raise EditError(f"found no {path!r}, expected package.module.Class.")
