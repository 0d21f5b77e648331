"""Key statistics before the first step: from a file, from a tracker later on, or from the training data now."""

from typing import TYPE_CHECKING, Any

from lightning_edit.callbacks.companions import refuse_sharded_pass
from lightning_edit.callbacks.edit_callback import find_callback
from lightning_edit.callbacks.key_covariance_tracker import KeyCovarianceTracker
from lightning_edit.callbacks.statistics_pass import statistics_of_training_data

if TYPE_CHECKING:
    import lightning.pytorch as pl

    from lightning_edit.callbacks.continual_edit import ContinualEdit


def get_statistics(editing: "ContinualEdit", trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
    """Give the editor its statistics, unless it has them or a tracker will have them; every rank must call.

    Args:
        editing: The callback that edits.
        trainer: The Trainer.
        pl_module: The module.

    Raises:
        StrategyError: If the training data would have to be read for a sharded model.
    """
    session = editing.session
    statistics: Any = editing.statistics
    waiting = statistics is None and find_callback(trainer, KeyCovarianceTracker) is not None
    if waiting or session.statistics.are_there(trainer):
        return
    if statistics is None:
        refuse_sharded_pass(trainer)
        lm = editing.find_language_model(trainer, pl_module)
        statistics = statistics_of_training_data(trainer, pl_module, lm, session.layers, editing.statistics_tokens)
    session.prepare(trainer, statistics)
