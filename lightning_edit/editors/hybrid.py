"""A weight editor and a text memory as one editor: every edit is made in both, or in neither.

*Revisiting* (arXiv 2606.00570, Table 43) asks whether parametric editors only lack what SCR has, and puts SCR on top of
them. This file knows how two editors keep in step; what each of them does is its own business.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor

from lightning_edit.editors.editor import Editor
from lightning_edit.editors.preparation import StatisticsSource
from lightning_edit.editors.registry import get_editor
from lightning_edit.editors.report import EditReport, Guard
from lightning_edit.editors.retrieval.text_memory import TextMemory
from lightning_edit.errors import EditError, StateError
from lightning_edit.model.language_model import LanguageModel, as_language_model
from lightning_edit.requests import EditRequest
from lightning_edit.targets import TargetOptimizer

VERSION = 1


class Hybrid(Editor):
    """Writes requests into weights, and remembers them as sentences too.

    While weights are edited the model has no memory: targets, keys and losses are those of the model by itself. A guard
    sees it as users will, with both. What the memory's sentences are not selected for is left to the weights.

    Args:
        editor: The weight editor, by name or as an object.
        editor_options: Its options, where it is named.
        memory: Options of `SCR`; with `editor` among them, of another text memory; or a text memory as it is.

    Example:
        >>> from lightning_edit import get_editor
        >>> both = get_editor("hybrid", editor="alphaedit", memory={"top_k": 5})
        >>> type(both.editor).__name__, type(both.memory).__name__, both.memory.top_k
        ('AlphaEdit', 'SCR', 5)
    """

    acts_on_every_rank = True
    in_weights = False

    def __init__(
        self,
        editor: str | Editor = "memit",
        editor_options: dict[str, Any] | None = None,
        memory: dict[str, Any] | TextMemory | None = None,
    ) -> None:
        if isinstance(editor, Editor) and editor_options:
            raise EditError(f"found a ready {type(editor).__name__} together with options; expected them with a name.")
        self.editor = editor if isinstance(editor, Editor) else get_editor(editor, **(editor_options or {}))
        texts: Editor = memory if isinstance(memory, TextMemory) else _make_memory(memory or {})
        if not isinstance(texts, TextMemory) or isinstance(self.editor, TextMemory | Hybrid):
            raise EditError(
                f"found {type(self.editor).__name__} with {type(texts).__name__}; expected an editor of weights with a "
                "text memory, such as memit with scr."
            )
        self.memory: TextMemory = texts
        if self.editor.requests or self.memory.requests:
            raise EditError("found an editor that has edited before; expected both fresh, since they keep in step.")
        self.drift = self.editor.drift
        self.needs_statistics = self.editor.needs_statistics

    @property
    def aligned(self) -> bool:
        """Whether the weight editor is."""
        return self.editor.aligned

    @property
    def prepared(self) -> bool:
        """Whether the weight editor is."""
        return self.editor.prepared

    @property
    def requests(self) -> list[EditRequest]:
        """Requests at work, in the order they were applied."""
        return self.memory.requests

    @property
    def layers(self) -> list[int]:
        """The weight editor's layers."""
        return self.editor.layers

    def weights(self, lm: LanguageModel) -> list[Tensor]:
        """The weight editor's parameters.

        Args:
            lm: The language model.
        """
        return self.editor.weights(lm)

    def find_targets_with(self, optimizer: TargetOptimizer | None) -> bool:
        """As for the weight editor.

        Args:
            optimizer: What stands for `optimize_targets`; None for that one.
        """
        return self.editor.find_targets_with(optimizer)

    def attach(self, module: object) -> list[int]:
        """Settle on a model with both.

        Args:
            module: An `EditableModule` or `LanguageModel`.
        """
        self.memory.attach(module)
        return self.editor.attach(module)

    def detach(self, module: object) -> None:
        """Take the memory away, and what else the weight editor put around the model.

        Args:
            module: An `EditableModule` or `LanguageModel`.
        """
        self.memory.detach(module)
        self.editor.detach(module)

    def prepare(
        self,
        module: object,
        statistics: StatisticsSource | None = None,
        corpus: Iterable[str] | None = None,
        max_tokens: int | None = None,
    ) -> None:
        """Get both ready for the first edit.

        Args:
            module: An `EditableModule` or `LanguageModel`.
            statistics: For the weight editor.
            corpus: For the weight editor.
            max_tokens: Read this much of the corpus at most.
        """
        self.attach(module)
        self.editor.prepare(module, statistics, corpus, max_tokens)

    def edit(self, module: object, requests: Iterable[EditRequest], guard: Guard | None = None) -> EditReport:
        """Teach the weights and the memory some requests, or leave everything as it was.

        Args:
            module: An `EditableModule` or `LanguageModel`.
            requests: The requests; those the weight editor can take.
            guard: Called with the report when the model carries the edit and the memory holds it.
        """
        batch = list(requests)
        self.memory.check(module, batch)

        def write(both: Guard) -> EditReport:
            return self.editor.edit(module, batch, both)

        return self._in_step(module, write, batch, guard)

    def undo(self, module: object, ids: Iterable[str] | str, guard: Guard | None = None) -> EditReport:
        """Take requests back in both.

        The memory then holds what the weights hold: where the weight editor takes back whole commits, together with the
        requests in them that were replaced since, these do not come back in the memory either.

        Args:
            module: An `EditableModule` or `LanguageModel`.
            ids: Ids of active requests.
            guard: As for `edit`.

        Raises:
            EditError: Where the weight editor cannot take them back; the memory then keeps them too.
        """
        names = [ids] if isinstance(ids, str) else list(ids)

        def write(both: Guard) -> EditReport:
            return self.editor.undo(module, names, both)

        return self._in_step(module, write, [], guard)

    def rollback(self, module: object, count: int, guard: Guard | None = None) -> EditReport:
        """Take the last requests back in both.

        Args:
            module: An `EditableModule` or `LanguageModel`.
            count: How many.
            guard: As for `edit`.
        """

        def write(both: Guard) -> EditReport:
            return self.editor.rollback(module, count, both)

        return self._in_step(module, write, [], guard)

    def repair(self, module: object, refresh: bool = False, guard: Guard | None = None) -> EditReport:
        """Bring the weights' edits back; sentences do not wear.

        Args:
            module: An `EditableModule` or `LanguageModel`.
            refresh: As for the weight editor.
            guard: As for `edit`.
        """
        lm = as_language_model(module)

        def agree(report: EditReport) -> bool:
            with lm.with_memory(self.memory):
                return guard is None or guard(report)

        self.memory.attach(lm)
        with lm.without_memory():
            return self.editor.repair(module, refresh, agree)

    def state_dict(self) -> dict[str, Any]:
        """Both states."""
        return {"version": VERSION, "editor": self.editor.state_dict(), "memory": self.memory.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another hybrid stood; the model's weights have to come from the same moment.

        Args:
            state: What `state_dict` gave.
        """
        if state.get("version") != VERSION or "memory" not in state:
            raise StateError(
                f"found a state of version {state.get('version')!r} with {sorted(state)}; expected a hybrid editor of "
                f"version {VERSION}. Load what `save` of such an editor wrote."
            )
        before = self.memory.state_dict()
        self.memory.load_state_dict(state["memory"])
        try:
            self.editor.load_state_dict(state["editor"])
        except BaseException:
            self.memory.load_state_dict(before)
            raise

    def _in_step(
        self,
        module: object,
        write: Callable[[Guard], EditReport],
        batch: Sequence[EditRequest],
        guard: Guard | None,
    ) -> EditReport:
        """Change the weights on the bare model, and the memory when they are written, just before the guard looks.

        What is at work then is the weight editor's decision, which the memory follows. The weight editor takes its part
        back by itself, whatever goes wrong in its guard.
        """
        lm, before = as_language_model(module), self.memory.snapshot()

        def both(report: EditReport) -> bool:
            with lm.with_memory(self.memory):
                with report.timed("memory"):
                    self.memory.follow(module, batch, report)
                return guard is None or guard(report)

        self.memory.attach(lm)
        try:
            with lm.without_memory():
                report = write(both)
        except BaseException:
            self.memory.restore(before)
            raise
        report.active = len(self.requests)
        return report


def _make_memory(options: dict[str, Any]) -> Editor:
    """The text memory that options describe."""
    return get_editor(options.get("editor", "scr"), **{key: options[key] for key in options if key != "editor"})
