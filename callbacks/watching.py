"""How a callback that watches edits finds the one that makes them, and the model they are made in."""

from typing import TYPE_CHECKING

from lightning_edit.callbacks.continual_edit import ContinualEdit
from lightning_edit.callbacks.edit_callback import find_callback
from lightning_edit.errors import StrategyError
from lightning_edit.model.language_model import LanguageModel

if TYPE_CHECKING:
    import lightning.pytorch as pl


def find_editing(trainer: "pl.Trainer", watcher: object) -> ContinualEdit:
    """The Trainer's `ContinualEdit`.

    Args:
        trainer: The Trainer.
        watcher: The callback that needs it.

    Raises:
        StrategyError: If there is none.
    """
    editing = find_callback(trainer, ContinualEdit)
    if editing is None:
        raise StrategyError(
            f"{type(watcher).__name__} found no ContinualEdit among the callbacks; expected one, whose edits it "
            "watches. In a run without edits use ContinualEdit(editor=None, ...), a control run."
        )
    return editing


def find_edited(
    trainer: "pl.Trainer", pl_module: "pl.LightningModule", watcher: object
) -> tuple[ContinualEdit, LanguageModel]:
    """The Trainer's `ContinualEdit`, and the model it edits.

    Args:
        trainer: The Trainer.
        pl_module: The module.
        watcher: The callback that needs them.

    Raises:
        StrategyError: If there is no `ContinualEdit`.
    """
    editing = find_editing(trainer, watcher)
    return editing, editing.find_language_model(trainer, pl_module)
