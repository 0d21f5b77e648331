"""Who takes part in a leaderboard, and everything that the numbers of a cell hang on.

Knows what a recipe says of an editor, and what an editor says of itself once it has met the model. It plays nothing.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from lightning_edit.editors.editor import Editor
from lightning_edit.editors.hybrid import Hybrid
from lightning_edit.errors import EditError
from lightning_edit.evaluation import AnswerOptions
from lightning_edit.jobs.cast import Declared
from lightning_edit.jobs.common_options import as_asked, fill_in, knows, parts_of
from lightning_edit.jobs.leaderboard_cells import Load
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.requests import EditRequest

RESOLVED = ("settings", "preset")
"""Where editors keep the numbers that they took from presets."""
PROSE = ("name", "family", "source", "sources", "remarks", "failing")
"""What presets say to a person; no number hangs on it."""


@dataclass(frozen=True)
class Entry:
    """An editor that takes part.

    Args:
        label: Its name in tables and figures.
        declared: How it is made.
        batch: Requests it is handed at once; the load's number where None.
        shortened: What is less than published, in words.
        untrained: The same before it was given a network that was trained for it.
    """

    label: str
    declared: Declared
    batch: int | None = None
    shortened: str = ""
    untrained: "Entry | None" = None

    @classmethod
    def read(cls, label: str, options: Mapping[str, Any], shared: Mapping[str, Any]) -> "Entry":
        """Read what a recipe says of one editor.

        Args:
            label: Its label, which is part of file names.
            options: As for `Declared.read`, with `batch` and `shortened` among them.
            shared: Options of all editors.
        """
        if not label or any(not (sign.isalnum() or sign in "._+-") for sign in label):
            raise EditError(f"found the label {label!r}; expected letters, digits and any of . _ + -")
        own = dict(options)
        batch, shortened = own.pop("batch", None), str(own.pop("shortened", ""))
        if batch is not None and (not isinstance(batch, int) or batch < 1):
            raise EditError(f"{label}: found batch={batch!r}, expected a number of requests, or nothing.")
        return cls(label, Declared.read(own, shared, 1), batch, shortened)

    @property
    def wants_mend(self) -> bool:
        """Whether it is MEND, or a hybrid on it, and nobody has said which network."""
        name, options = self.declared.name, self.declared.options
        if name == "hybrid":
            return options.get("editor") == "mend" and "checkpoint" not in (options.get("editor_options") or {})
        return name == "mend" and "checkpoint" not in options

    def with_mend(self, checkpoint: Path) -> "Entry":
        """The same with a trained network, where it wants one.

        Args:
            checkpoint: The network's file.
        """
        if not self.wants_mend:
            return self
        options = dict(self.declared.options)
        if self.declared.name == "hybrid":
            options["editor_options"] = {**(options.get("editor_options") or {}), "checkpoint": str(checkpoint)}
        else:
            options["checkpoint"] = str(checkpoint)
        return replace(self, declared=replace(self.declared, options=options), untrained=self)

    def at_once(self, load: Load) -> int:
        """Requests that the editor is handed at once.

        Args:
            load: The load.
        """
        return min(load.edits, self.batch or load.batch)

    def settings(self, mend: Mapping[str, Any]) -> dict[str, Any]:
        """What the recipe says of it, as plain values; of a network that was trained for it, how, and not where it is.

        Args:
            mend: How MEND's network is trained.
        """
        if self.untrained is None:
            return {"name": self.declared.name, "options": plain(self.declared.options)}
        return {**self.untrained.settings(mend), "mend": dict(mend)}


def read_entries(
    editors: Mapping[str, Mapping[str, Any]], shared: Mapping[str, Any], answers: AnswerOptions
) -> list[Entry]:
    """Read what a recipe says of all editors; each gets those common options that it knows and does not set itself.

    A hybrid's go to its two editors. Common is also how the model is asked, see `as_asked`.

    Args:
        editors: Label to an editor's options, as for `Entry.read`.
        shared: Options of all editors that know them.
        answers: How the model is asked.

    Raises:
        EditError: No editor knows a shared option.
    """
    common = {**as_asked(answers), **shared}
    entries = [Entry.read(label, options, {}) for label, options in editors.items()]
    everyone = [name for entry in entries for name in parts_of(entry.declared.name, entry.declared.options)]
    if unknown := [key for key in shared if not any(knows(name, key) for name in everyone)]:
        raise EditError(f"found the shared options {unknown}, which no editor here has; expected some that one has.")
    return [_with(entry, common) for entry in entries]


def _with(entry: Entry, common: Mapping[str, Any]) -> Entry:
    """An entry with the common options that its editor knows, under its own."""
    declared = entry.declared
    return replace(entry, declared=replace(declared, options=fill_in(declared.name, declared.options, common)))


def resolved(editor: Editor) -> dict[str, Any]:
    """The numbers that an editor took from presets when it met the model, where they are not the method's defaults.

    Args:
        editor: An attached editor.
    """
    if isinstance(editor, Hybrid):
        return {"editor": resolved(editor.editor), "memory": resolved(editor.memory)}
    found: dict[str, Any] = {"layers": list(editor.layers)}
    for name in RESOLVED:
        value = getattr(editor, name, None)
        if is_dataclass(value) and not isinstance(value, type):
            default = {field.name: field.default for field in fields(value)}
            own = {key: one for key, one in asdict(value).items() if key not in PROSE and one != default[key]}
            found[name] = plain(own)
    return found


def meet(lm: LanguageModel, entry: Entry, seed: int) -> tuple[dict[str, Any], list[int]]:
    """What an editor took from presets, and the layers whose key statistics it needs; the model is left as it was.

    Args:
        lm: The clean model.
        entry: The editor.
        seed: Seed of contexts.
    """
    editor = entry.declared.build(seed)
    try:
        layers = editor.attach(lm)
        return resolved(editor), layers if editor.needs_statistics else []
    finally:
        editor.detach(lm)


def digest(requests: Iterable[EditRequest]) -> str:
    """A hash of requests with all their probes.

    Args:
        requests: The requests, in order.
    """
    texts = [json.dumps(request.to_dict(), sort_keys=True, ensure_ascii=False) for request in requests]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def digest_names(names: Sequence[str]) -> str:
    """A hash of names, whatever their order.

    Args:
        names: The names.
    """
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:16]


def plain(value: Any) -> Any:
    """Settings as JSON gives them back: lists for tuples, texts for what JSON does not know.

    Args:
        value: The settings.

    Example:
        >>> plain({"layers": (1, 2), "file": Path("a/b")})
        {'layers': [1, 2], 'file': 'a/b'}
    """
    return json.loads(json.dumps(value, default=str))
