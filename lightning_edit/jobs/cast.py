"""Editors as a recipe names them, and editors ready to play on a clean model.

What a job is told of its editors is a mapping of options; here that becomes editors with their key statistics. What
they are handed, and who looks, stands in `stage.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning_edit.algebra import KeyCovariance
from lightning_edit.editors.base import ClosedFormEditor
from lightning_edit.editors.editor import Editor
from lightning_edit.editors.registry import editor_class, get_editor, option_names
from lightning_edit.errors import EditError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.targets import TargetOptimizer


@dataclass(frozen=True)
class Declared:
    """An editor as a recipe names it.

    Args:
        name: Its name, or the path of its class.
        options: Its options.
        steps: Number of steps its edits come in.
    """

    name: str
    options: dict[str, Any]
    steps: int

    @classmethod
    def read(cls, options: Mapping[str, Any], shared: Mapping[str, Any], steps: int) -> "Declared":
        """Read what a recipe says of one editor.

        Args:
            options: Its own options, with `editor` (memit if absent) and `in_steps` among them; options that are
                called like one of these, as a hybrid's are, stand under `options`.
            shared: Options of all editors.
            steps: Number of steps, where it has none of its own.
        """
        own = dict(options)
        name, parts = str(own.pop("editor", "memit")), int(own.pop("in_steps", steps))
        if parts < 1:
            raise EditError(f"found {parts} steps, expected at least one step")
        return cls(name, {**shared, **own.pop("options", {}), **own}, parts)

    def build(self, seed: int = 0) -> Editor:
        """Make the editor; one that samples contexts draws others for each seed.

        Args:
            seed: The seed.
        """
        known = option_names(editor_class(self.name))
        seeded = {"seed": seed} if known is not None and "seed" in known else {}
        return get_editor(self.name, **{**seeded, **self.options})


class Cast:
    """Prepared editors of one declaration: a closed-form one's priors are made once, whatever the seeds of contexts.

    Args:
        method: The declaration.
        lm: The clean model.
        moments: Key statistics of all layers it may want, or the file they are in.
        optimizer: What finds its targets; the editor itself, on the model as it is, where absent.
    """

    def __init__(
        self,
        method: Declared,
        lm: LanguageModel,
        moments: Mapping[int, KeyCovariance] | str,
        optimizer: TargetOptimizer | None = None,
    ) -> None:
        self.method, self._lm, self._moments, self._optimizer = method, lm, moments, optimizer
        self._ready: ClosedFormEditor | None = None

    def editor(self, seed: int = 0) -> Editor:
        """An editor that is ready for its first edit.

        Args:
            seed: Seed of contexts, where it samples any.
        """
        editor = self._prepared(seed)
        if self._optimizer is not None:
            editor.find_targets_with(self._optimizer)
        return editor

    def _prepared(self, seed: int) -> Editor:
        """An editor with its priors."""
        if self._ready is None:
            editor = self.method.build(seed)
            editor.prepare(self._lm, statistics=self._moments if editor.needs_statistics else None)
            if not isinstance(editor, ClosedFormEditor):
                return editor
            self._ready = editor
        return self._ready.twin(self._lm, self.method.options.get("seed", seed))
