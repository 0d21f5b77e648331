"""The face of editors that act inside the forward pass: no weight is written, one projection's output is replaced.

A hook on one FFN projection hands its input and output to the editor, together with the window of `PromptScope`
that says where each row's prompt ends. Where the editor has nothing to say, the output goes on as it is, bit for bit.
All that an editor has learned is one value, its book; an operation makes a new one and puts it in the old one's place,
so that whatever fails leaves the old one. Shapes say n for the length of the projection's input and d for that of its
output, whichever of the FFN's projections it is. This file knows no method.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

from lightning_edit.editors.editor import Editor
from lightning_edit.editors.forward_settings import Settings, find_settings
from lightning_edit.editors.report import EditRefused, EditReport, Guard
from lightning_edit.errors import EditError, StateError
from lightning_edit.model.ffn_parts import find_part
from lightning_edit.model.language_model import LanguageModel, as_language_model
from lightning_edit.model.prompt_scope import Window

VERSION = 1
Book = TypeVar("Book")


class ForwardEditor(Editor, Generic[Book, Settings]):
    """Replaces outputs of one FFN projection.

    In train mode the editor does nothing: training moves the model below it.

    Args:
        kind: The editor's kind of settings.
        given: Settings that the user gave; those that are None are taken from the preset.
        preset: Name of a model whose published settings to take; None finds them by the model's name and shape.
    """

    acts_on_every_rank = True
    in_weights = False
    settings_of: str  # the editor's name in the file of presets
    system: str | None = None  # what the system says first in a chat

    def __init__(self, kind: type[Settings], given: Mapping[str, Any], preset: str | None) -> None:
        self._kind, self._given, self._preset = kind, dict(given), preset
        self._settings: Settings | None = None
        self._saved_settings: dict[str, Any] | None = None  # of a loaded state, until a model is there
        self._identity: str | None = None
        self._lm: LanguageModel | None = None
        self._hook: tuple[nn.Module, Any] | None = None
        self._book: Book = self._empty()

    # -- what a method has to say ----------------------------------------------------------------------------------

    @abstractmethod
    def _empty(self) -> Book:
        """The book of an editor that has learned nothing."""

    @abstractmethod
    def _act(self, x: Tensor, y: Tensor, window: Window) -> Tensor | None:
        """What to put out instead of the projection's output; None leaves it as it is.

        Args:
            x: Input of the projection (b, t, n).
            y: Its output (b, t, d).
            window: Whose tokens they are.
        """

    @abstractmethod
    def _plain_book(self) -> dict[str, Any]:
        """The book as tensors and plain containers."""

    @abstractmethod
    def _read_book(self, state: dict[str, Any]) -> Book:
        """The book that a state describes."""

    @abstractmethod
    def _fixed(self, settings: Settings) -> dict[str, Any]:
        """The settings that what was learned hangs on, as plain values."""

    # -- what a user can ask for -----------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings | None:
        """The numbers in use; None before the editor has met a model."""
        return self._settings

    @property
    def layers(self) -> list[int]:
        """The block whose FFN projection is replaced; empty before the editor has met a model."""
        return [] if self._settings is None else [self._settings.layer]

    def attach(self, module: object) -> list[int]:
        """Settle on a model: from now on it answers through the editor, which says nothing until it has learned.

        Args:
            module: An `EditableModule` or `LanguageModel`.
        """
        self._open(module)
        return self.layers

    def detach(self, module: object) -> None:
        """Take the editor out of the model, which then answers as if it had never been edited.

        Args:
            module: An `EditableModule` or `LanguageModel`; another one than the editor is attached to is left alone.
        """
        if self._lm is as_language_model(module):
            self._unhook()

    def weights(self, lm: LanguageModel) -> list[Tensor]:
        """None: no weight is written.

        Args:
            lm: The language model.
        """
        return []

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers with which another editor goes on bit for bit."""
        settings = self._saved_settings
        if self._settings is not None:
            settings = self._told(self._settings)
        return {
            "version": VERSION,
            "editor": type(self).__name__,
            "model": self._identity,
            "settings": settings,
            "book": self._plain_book(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another editor stood; an attached model answers with its edits at once.

        Args:
            state: What `state_dict` gave.
        """
        for name, expected in (("version", VERSION), ("editor", type(self).__name__)):
            if state.get(name) != expected:
                raise StateError(
                    f"the saved editor has {name} {state.get(name)!r}; expected {expected!r}. "
                    "Load it with the editor and options it was saved with."
                )
        _check_identity(state["model"], self._identity)
        if self._settings is not None:
            self._check_settings(self._settings, state["settings"])
        self._book = self._read_book(state["book"])
        self._identity, self._saved_settings = state["model"] or self._identity, state["settings"]

    # -- how it is done --------------------------------------------------------------------------------------------

    def _open(self, module: object) -> LanguageModel:
        """The model, with the hook in place."""
        lm = as_language_model(module)
        _check_identity(self._identity, lm.identity)
        if self._settings is None:
            settings = find_settings(lm, self.settings_of, self._kind, self._given, self._preset)
            settings = self._fitting(lm, settings)
            self._check_settings(settings, self._saved_settings)
            if self.system is not None and not settings.chat:
                raise EditError(
                    f"found system={self.system!r} without a chat, where nobody would say it; expected chat=True and a "
                    "tokenizer with a chat template beside it, or no system."
                )
            self._settings = settings
        place = find_part(lm, self._settings.layer, self._settings.part)
        projection: nn.Module = lm.model.get_submodule(place.path)
        if self._hook is None or self._hook[0] is not projection or self._lm is not lm:
            self._unhook()
            lm.scope_of(self._settings.layer).join(self)
            self._hook = projection, projection.register_forward_hook(_replace(self, lm))
        self._lm, self._identity = lm, lm.identity
        return lm

    def _fitting(self, lm: LanguageModel, settings: Settings) -> Settings:
        """A preset's settings, as far as the model can follow them."""
        return settings

    def _unhook(self) -> None:
        """Leave the model that the editor is in."""
        if self._hook is not None:
            self._hook[1].remove()
        if self._lm is not None:
            assert self._settings is not None  # settled with the model
            self._lm.scope_of(self._settings.layer).leave(self)
        self._hook = self._lm = None

    def _told(self, settings: Settings) -> dict[str, Any]:
        """The settings that a state names."""
        return {"layer": settings.layer, "part": settings.part, **self._fixed(settings)}

    def _check_settings(self, settings: Settings, saved: dict[str, Any] | None) -> None:
        """Refuse a state that was made with other settings."""
        own = self._told(settings)
        saved = None if saved is None else {"part": "down", **saved}  # the only one, before there was a choice
        if saved is not None and (other := {name: value for name, value in saved.items() if own.get(name) != value}):
            raise StateError(
                f"the saved editor has {other}; this one has { {name: own.get(name) for name in other} }. "
                "Load it with the editor and options it was saved with."
            )

    @contextmanager
    def _transaction(self, lm: LanguageModel, report: EditReport, guard: Guard | None) -> Iterator[None]:
        """Everything inside happens, or nothing does."""
        with report.timed("total"), lm.borrow():
            book = self._book
            try:
                yield
                report.active = len(self.requests)
                if guard is not None and not guard(report):
                    raise EditRefused(
                        f"the guard refused this {report.kind} of {report.count} requests; the editor is as before."
                    )
            except BaseException:
                self._book = book
                raise


def _replace(editor: ForwardEditor[Any, Any], lm: LanguageModel) -> Any:
    """The hook; no bound method, which a copy of the model would copy the editor with."""
    scope = lm.scope_of(editor.layers[0])

    def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        window = scope.window
        if window is None:
            return None
        x, y = (tensor.view(window.rows, -1, tensor.shape[-1]) for tensor in (args[0], output))  # OPT runs on (b t, n)
        instead = editor._act(x, y, window)
        return None if instead is None else instead.view(output.shape)

    return hook


def _check_identity(one: str | None, other: str | None) -> None:
    if one is not None and other is not None and one != other:
        raise StateError(
            f"the edits were made on the model {one}, this one is {other}; expected the same architecture, "
            "configuration and name. Make a new editor for another model."
        )
