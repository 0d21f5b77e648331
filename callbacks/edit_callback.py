"""Callbacks that want to know when edits happen.

Knows the moments just before and just after a commit, and when edits go to work without training. Refuses to know what
is done in them.
"""

from collections.abc import Sequence
from typing import TypeVar

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from lightning_edit.editors.report import EditReport
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.requests import EditRequest

CallbackType = TypeVar("CallbackType", bound=Callback)


class EditCallback(Callback):
    """A Lightning callback with three more hooks, called by `ContinualEdit` on every rank.

    Two stand around every commit; the third comes where the Trainer validates, tests or predicts outside of `fit`.

    Example:
        >>> class Announce(EditCallback):
        ...     def on_after_edit(self, trainer, pl_module, requests, report):
        ...         print(f"{report.count} edits in {report.seconds['total']:.1f} s")
    """

    def on_before_edit(
        self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", requests: Sequence[EditRequest]
    ) -> None:
        """Called when requests are due and nothing has been changed yet.

        Args:
            trainer: The Trainer.
            pl_module: The module.
            requests: The requests of this commit.
        """

    def on_after_edit(
        self,
        trainer: "pl.Trainer",
        pl_module: "pl.LightningModule",
        requests: Sequence[EditRequest],
        report: EditReport,
    ) -> None:
        """Called when the model carries the edits and the cursor has moved.

        Args:
            trainer: The Trainer.
            pl_module: The module.
            requests: The requests of this commit.
            report: What the editor did; in a control run nothing, and the report is empty.
        """

    def on_put_to_work(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", lm: LanguageModel) -> None:
        """Called when the editor has taken its place in a model that is not trained now; it may be called again.

        Args:
            trainer: The Trainer.
            pl_module: The module.
            lm: The language model.
        """


def edit_callbacks(trainer: "pl.Trainer") -> list[EditCallback]:
    """The Trainer's callbacks that want to know of edits, in their order.

    Args:
        trainer: The Trainer.
    """
    return [callback for callback in callbacks_of(trainer) if isinstance(callback, EditCallback)]


def find_callback(trainer: "pl.Trainer", kind: type[CallbackType]) -> CallbackType | None:
    """The Trainer's first callback of a kind.

    Args:
        trainer: The Trainer.
        kind: Its class.
    """
    return next((callback for callback in callbacks_of(trainer) if isinstance(callback, kind)), None)


def callbacks_of(trainer: "pl.Trainer") -> list[Callback]:
    """The Trainer's callbacks, in their order.

    Args:
        trainer: The Trainer.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set outside of the class
    return callbacks
