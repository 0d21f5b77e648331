"""What every editor can be asked for, whatever it does to a model.

Callbacks, recipes and users know this face only. Closed-form editors (`base.py`) hold ledgers behind it, others
fine-tune, keep adapters, remember examples, or answer out of a text memory. This file knows no method.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from os import PathLike
from types import MappingProxyType
from typing import Any, ClassVar, Self

from torch import Tensor

from lightning_edit.editors.preparation import StatisticsSource
from lightning_edit.editors.report import EditReport, Guard
from lightning_edit.editors.storage import load_state, save_state
from lightning_edit.errors import EditError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.requests import EditRequest
from lightning_edit.targets import TargetOptimizer


class Editor(ABC):
    """Teaches a model requests, takes them back, and keeps account of both.

    Three promises hold for each: an operation that fails, or that a guard refuses, leaves model and editor as they
    were; `load_state_dict` in a fresh process goes on bit for bit; training mode, gradients, `requires_grad`, caches
    and random numbers of the model are after an operation what they were before.

    Attributes:
        drift: What becomes of weight changes between two edits; `ignore` where the editor never looks.
        needs_statistics: Whether `prepare` has to be given key statistics before the first edit.
        acts_on_every_rank: Whether the model answers through the editor, so that each process needs its state and not
            only the weights it wrote.
        in_weights: Whether a saved model has the edits in its weights. Where not, the editor has to be saved beside
            it, see `save_edits`.
        elsewhere: Options that people look for and the method does not have, and the way to what they want.
        made_with: The arguments of its making, so that a file can say how to make another.
    """

    drift: str = "ignore"
    needs_statistics: bool = False
    acts_on_every_rank: bool = False
    in_weights: bool = True
    elsewhere: ClassVar[Mapping[str, str]] = MappingProxyType({})
    made_with: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """Write down what the editor is made with; an option that it does not have says where to find it."""
        for option in options:
            if option in cls.elsewhere:
                raise EditError(f"{option}={options[option]!r}: {cls.elsewhere[option]}")
        editor = super().__new__(cls)
        editor.made_with = (args, options)
        return editor

    @property
    def aligned(self) -> bool:
        """Whether sequential edits equal the one-time edit of all active requests."""
        return False

    @property
    def prepared(self) -> bool:
        """Whether the editor has what it needs to edit."""
        return not self.needs_statistics

    @property
    @abstractmethod
    def requests(self) -> list[EditRequest]:
        """Requests at work, in the order they were applied."""

    @property
    @abstractmethod
    def layers(self) -> list[int]:
        """The blocks whose FFN the editor touches; empty before it has met a model, and where it touches none."""

    @abstractmethod
    def attach(self, module: object) -> list[int]:
        """Settle on a model. No answer of the model changes, unless a loaded state puts edits back to work.

        Args:
            module: An `EditableModule` or `LanguageModel`.

        Returns:
            The layers, as in `layers`.
        """

    def detach(self, module: object) -> None:
        """Let go of a model: whatever the editor put around it, hooks or memory, is gone; written weights stay.

        Args:
            module: An `EditableModule` or `LanguageModel`.
        """
        return

    def prepare(
        self,
        module: object,
        statistics: StatisticsSource | None = None,
        corpus: Iterable[str] | None = None,
        max_tokens: int | None = None,
    ) -> None:
        """Get ready for the first edit. Nothing in the model changes.

        Args:
            module: An `EditableModule` or `LanguageModel`.
            statistics: A file of key statistics, or moments by layer, for editors that need them.
            corpus: Texts to collect them from, or texts that should stay as likely as they are.
            max_tokens: Read this much of the corpus at most.
        """
        self.attach(module)

    @abstractmethod
    def edit(self, module: object, requests: Iterable[EditRequest], guard: Guard | None = None) -> EditReport:
        """Teach the model some requests, or leave everything as it was.

        Args:
            module: An `EditableModule` or `LanguageModel`.
            requests: The requests.
            guard: Called with the report when the model carries the edit; if it does not say true, all is taken back.
        """

    @abstractmethod
    def undo(self, module: object, ids: Iterable[str] | str, guard: Guard | None = None) -> EditReport:
        """Take requests back.

        Args:
            module: An `EditableModule` or `LanguageModel`.
            ids: Ids of active requests.
            guard: As for `edit`.

        Raises:
            EditError: Where the method cannot take back what was asked for, such as an early step of fine-tuning.
        """

    @abstractmethod
    def rollback(self, module: object, count: int, guard: Guard | None = None) -> EditReport:
        """Take back the requests that were applied last.

        Args:
            module: An `EditableModule` or `LanguageModel`.
            count: How many.
            guard: As for `edit`.
        """

    def repair(self, module: object, refresh: bool = False, guard: Guard | None = None) -> EditReport:
        """Bring edits back that training has worn, where the editor can; the others do nothing.

        Args:
            module: An `EditableModule` or `LanguageModel`.
            refresh: Also renew what was read from the model.
            guard: As for `edit`.
        """
        return EditReport("repair", active=len(self.requests))

    def find_targets_with(self, optimizer: TargetOptimizer | None) -> bool:
        """Let something else find the targets of edits, such as several processes together.

        Args:
            optimizer: What stands for `optimize_targets`; None for that one.

        Returns:
            Whether the editor has targets that are found so.
        """
        return False

    @abstractmethod
    def weights(self, lm: LanguageModel) -> list[Tensor]:
        """The parameters that an edit writes, in one order on every process; what other ranks have to be given.

        Args:
            lm: The language model.
        """

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers with which another editor goes on bit for bit."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another editor stood; the model's weights have to come from the same moment.

        Args:
            state: What `state_dict` gave.
        """

    def save(self, path: str | PathLike[str]) -> None:
        """Write the state to a file, atomically.

        Args:
            path: The file.
        """
        save_state(path, self.state_dict())

    def load(self, path: str | PathLike[str]) -> None:
        """Read the state from a file.

        Args:
            path: What `save` wrote.
        """
        self.load_state_dict(load_state(path))
