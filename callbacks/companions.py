"""What `ContinualEdit` cannot work beside: callbacks in the wrong order, and what does not run on every rank alike."""

from typing import TYPE_CHECKING

from lightning.pytorch.callbacks import Checkpoint, StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lightning_edit.callbacks.edit_callback import callbacks_of
from lightning_edit.callbacks.key_covariance_tracker import KeyCovarianceTracker
from lightning_edit.callbacks.strategies import is_sharded
from lightning_edit.editors.keeper import Keeper
from lightning_edit.errors import StrategyError

if TYPE_CHECKING:
    import lightning.pytorch as pl

    from lightning_edit.callbacks.continual_edit import ContinualEdit

AVERAGING = (WeightAveraging, StochasticWeightAveraging)


def check_companions(trainer: "pl.Trainer", editing: "ContinualEdit") -> None:
    """Refuse callbacks that cannot work in this order, and warn of those that keep too little.

    Args:
        trainer: The Trainer.
        editing: The callback that edits.

    Raises:
        StrategyError: If weights are averaged behind it.
    """
    callbacks = callbacks_of(trainer)
    later = callbacks[callbacks.index(editing) + 1 :]
    averaging = [type(other).__name__ for other in later if isinstance(other, AVERAGING)]
    if averaging:
        raise StrategyError(
            f"found {averaging[0]} behind ContinualEdit in the list of callbacks, expected it in front: when "
            "training ends it replaces the weights by averaged ones, and the last repair has to come after that."
        )
    if any(getattr(other, "save_weights_only", False) for other in callbacks if isinstance(other, Checkpoint)):
        rank_zero_warn(
            "A checkpoint callback has save_weights_only=True: its checkpoints hold the edited weights but not the "
            "ledger, so edits cannot be undone, repaired or resumed from them."
        )


def check_sharded(trainer: "pl.Trainer", editing: "ContinualEdit") -> None:
    """Refuse editors and callbacks that do not run on every rank of a sharded model alike.

    Args:
        trainer: The Trainer.
        editing: The callback that edits.

    Raises:
        StrategyError: If there is one.
    """
    if editing.editor is not None and not isinstance(editing.editor, Keeper):
        raise StrategyError(
            f"found {type(editing.editor).__name__} on a sharded model; expected a closed-form editor, such as MEMIT: "
            "the others were not made for weights that are cut into pieces. Use one device or DDP."
        )
    fit = (type(editing), KeyCovarianceTracker)
    ours = [other for other in callbacks_of(trainer) if type(other).__module__.startswith("lightning_edit.callbacks")]
    asking = [type(other).__name__ for other in ours if not isinstance(other, fit)]
    if asking:
        raise StrategyError(
            f"found {', '.join(asking)} beside a sharded model; expected ContinualEdit and KeyCovarianceTracker "
            "alone: the others ask the model on one rank, where it cannot answer. Measure its checkpoints in a run "
            "of their own."
        )


def refuse_sharded_pass(trainer: "pl.Trainer") -> None:
    """Refuse to read training data for statistics where ranks would take different numbers of batches.

    Args:
        trainer: The Trainer.

    Raises:
        StrategyError: If the model is sharded.
    """
    if is_sharded(trainer):
        raise StrategyError(
            "found no key statistics for a sharded model; expected a file, ContinualEdit(statistics=FILE), or a "
            "KeyCovarianceTracker among the callbacks. The pass over the training data needs a whole model."
        )
