"""A commit that is due in a Trainer: how much of it, who hears of it, and what is logged.

Knows the callbacks and loggers around a commit. Refuses to know when one is due (`cadence.py`), and what it does to the
model (`commit.py`).
"""

from typing import TYPE_CHECKING

from lightning_edit.callbacks.edit_callback import edit_callbacks
from lightning_edit.callbacks.scalars import log_scalars

if TYPE_CHECKING:
    import lightning.pytorch as pl

    from lightning_edit.callbacks.continual_edit import ContinualEdit

LOGGED = ("seconds_per_edit", "delta_norm", "pending_norm", "drift_norm")  # of an EditReport


def commit_due(editing: "ContinualEdit", trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> bool:
    """Hand the next requests to the editor and tell whoever wants to know; every rank must call.

    Args:
        editing: The callback that edits.
        trainer: The Trainer.
        pl_module: The module.

    Returns:
        Whether there was anything to commit: no requests may be left, or the editor may wait for its statistics.
    """
    session, wanted = editing.session, editing.edits_per_commit
    if editing.max_edits is not None:
        wanted = min(wanted, editing.max_edits - editing.count)
    if wanted < 1 or not session.is_ready(trainer):
        return False
    requests = session.upcoming(trainer, wanted)
    if not requests:
        return False
    for callback in edit_callbacks(trainer):
        callback.on_before_edit(trainer, pl_module, requests)
    report = session.apply(trainer, requests)
    values: dict[str, float] = {"edit/count": editing.count}
    if editing.editor is not None:
        values |= {f"edit/{name}": getattr(report, name) for name in LOGGED}
    log_scalars(trainer, pl_module, values)
    for callback in edit_callbacks(trainer):
        callback.on_after_edit(trainer, pl_module, requests, report)
    return True
