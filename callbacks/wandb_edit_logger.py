"""`WandbEditLogger`: what W&B can show beyond scalars.

The only file that knows W&B, and only through Lightning's `WandbLogger`; beside any other logger it does nothing.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import WandbLogger

from lightning_edit.callbacks.bars import shown
from lightning_edit.callbacks.continual_edit import ContinualEdit
from lightning_edit.callbacks.edit_callback import EditCallback, find_callback
from lightning_edit.callbacks.edit_guard import EditGuard
from lightning_edit.callbacks.edit_monitor import EditMonitor
from lightning_edit.callbacks.strategies import on_rank_zero
from lightning_edit.evaluation import AnswerOptions, say
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.requests import EditRequest

COLUMNS = ["id", "prompt", "target", "before", "after", "active", "refused"]
REFUSED = ["id", "prompt", "target", "edits", "fate", "reason"]


class WandbEditLogger(EditCallback):
    """Plots edits against their number, and writes a table of requests with the answers before and after.

    All `edit/...`, `efficiency/...`, `geometry/...`, `guard/...` and `reasoning/...` metrics get `edit/count` as x
    axis. The table `edit_requests` holds, for the first `max_rows` requests, what the model said to the prompt just
    before the edit and what it says when training has ended; `active` whether it is at work, and `refused` why an
    `EditGuard` did not let it pass as it came. All of those requests stand in a table of their own, `edit_refusals`.

    Beside an `EditMonitor` the model is asked as that one asks it: through the chat template, with thoughts, as long.

    Args:
        max_rows: Rows of the table; 0 for no table.
        max_new_tokens: Longest answer; that of the `EditMonitor` where None, and 24 without one.
        batch_size: Prompts in one forward; likewise, and 64.
    """

    def __init__(self, max_rows: int = 200, max_new_tokens: int | None = None, batch_size: int | None = None) -> None:
        self.max_rows = max_rows
        given = {"max_new_tokens": max_new_tokens, "batch_size": batch_size}
        self._given: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        self._before: dict[str, str] = {}  # request id to answer

    def on_fit_start(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Give edits an axis of their own."""
        for logger in _wandb_loggers(trainer):
            logger.experiment.define_metric("edit/count")
            for room in ("edit", "efficiency", "geometry", "guard", "reasoning"):
                logger.experiment.define_metric(f"{room}/*", step_metric="edit/count")

    def on_before_edit(
        self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", requests: Sequence[EditRequest]
    ) -> None:
        """Ask what the model says now."""
        fresh = [request for request in requests if request.id not in self._before]
        asked = fresh[: max(self.max_rows - len(self._before), 0)]
        if asked and _has_wandb(trainer):
            self._before |= self._answers(trainer, pl_module, asked)

    def on_train_end(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Write the tables, after the last repair."""
        guard = find_callback(trainer, EditGuard)
        refusals = [] if guard is None else guard.refusals
        for logger in _wandb_loggers(trainer) if refusals else []:
            data = [[getattr(entry, name) for name in REFUSED] for entry in refusals]
            logger.log_table("edit_refusals", columns=REFUSED, data=data)
        editing = find_callback(trainer, ContinualEdit)
        if editing is None or not self._before or not _has_wandb(trainer):
            return
        editing.repair_for(trainer, "end")
        handed_over = on_rank_zero(trainer, editing.session.handed_over)
        rows = [request for request in handed_over if request.id in self._before]
        after = self._answers(trainer, pl_module, rows)
        active = {request.id for request in on_rank_zero(trainer, editing.session.active_requests)}
        reasons = {entry.id: f"{entry.fate}: {entry.reason}" for entry in refusals}
        data = [
            [
                row.id,
                row.prompt,
                row.target,
                self._before[row.id],
                after[row.id],
                row.id in active,
                reasons.get(row.id, ""),
            ]
            for row in rows
        ]
        for logger in _wandb_loggers(trainer):
            logger.log_table("edit_requests", columns=COLUMNS, data=data)

    def state_dict(self) -> dict[str, Any]:
        """The answers before the edits."""
        return {"before": dict(self._before)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a saved state.

        Args:
            state_dict: What `state_dict` gave.
        """
        self._before = dict(state_dict["before"])

    def _answers(
        self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", requests: Sequence[EditRequest]
    ) -> dict[str, str]:
        """What the model says to each request's prompt, by id."""
        editing = find_callback(trainer, ContinualEdit)
        assert editing is not None  # it has announced these requests
        lm: LanguageModel = editing.find_language_model(trainer, pl_module)
        prompts = [request.prompt for request in requests]
        monitor = find_callback(trainer, EditMonitor)
        how = dataclasses.replace(AnswerOptions() if monitor is None else monitor.options, **self._given)
        with shown(trainer, lm, "answers for the table"):
            said = on_rank_zero(trainer, lambda: say(lm, prompts, how))
        return {request.id: said[request.prompt] for request in requests}


def _wandb_loggers(trainer: "pl.Trainer") -> list[WandbLogger]:
    """The loggers to write to, on the rank that writes."""
    return [logger for logger in trainer.loggers if isinstance(logger, WandbLogger) and trainer.is_global_zero]


def _has_wandb(trainer: "pl.Trainer") -> bool:
    """Whether there is such a logger; on every rank."""
    return any(isinstance(logger, WandbLogger) for logger in trainer.loggers)
