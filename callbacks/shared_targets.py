"""Targets of an edit, found by all processes together where each of them holds whole weights.

Rank zero edits alone, and most of an edit's time goes into the optimisation of targets, column by column. So while it
edits, the others stand by: it sends them its columns and the weights under edit, every rank optimises its share, and
rank zero puts the shares back into the order of the columns. What a rank has lent is as it was when the share is done.
Columns never meet in a batch (`lightning_edit/targets/optimize.py`), so the targets are those of one process up to
rounding. This file knows ranks; what a target is, it does not.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import lightning.pytorch as pl
import torch
import torch.distributed
from torch import Tensor

from lightning_edit.callbacks.strategies import on_rank_zero, share_weights
from lightning_edit.editors.editor import Editor
from lightning_edit.errors import EditError, StrategyError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.targets import Column, TargetOptions, Targets, optimize_targets

Result = TypeVar("Result")
Job = tuple[list[Column], int, TargetOptions]
Share = tuple[Targets | None, EditError | None]  # what one rank found, or why it could not


def with_helpers(
    trainer: "pl.Trainer", lm: LanguageModel, editors: Sequence[Editor], action: Callable[[], Result]
) -> Result:
    """Run something that edits on rank zero, with the others at hand; every rank gets the result, or the error.

    Args:
        trainer: The Trainer, under DDP.
        lm: The language model.
        editors: The editors that `action` uses, the same ones on every rank.
        action: What to run; its result must be picklable.
    """
    crew = _Crew(trainer, lm, editors)
    able = [editor for editor in editors if editor.find_targets_with(crew.optimize)]
    try:
        if able and not trainer.is_global_zero:
            crew.serve()
        return on_rank_zero(trainer, (lambda: crew.lead(action)) if able else action)
    finally:
        for editor in able:
            editor.find_targets_with(None)


class _Crew:
    """All ranks during one operation.

    Args:
        trainer: The Trainer.
        lm: The language model.
        editors: The editors at work.
    """

    def __init__(self, trainer: "pl.Trainer", lm: LanguageModel, editors: Sequence[Editor]) -> None:
        self.trainer, self.lm = trainer, lm
        self.weights = list({id(value): value for editor in editors for value in editor.weights(lm)}.values())

    def lead(self, action: Callable[[], Result]) -> Result:
        """On rank zero: act, and let the others go in the end, whatever happens.

        Args:
            action: What to run.
        """
        try:
            return action()
        finally:
            self.trainer.strategy.broadcast(None)

    def serve(self) -> None:
        """On the other ranks: optimise what is sent until nothing more comes."""
        while (job := self.trainer.strategy.broadcast(None)) is not None:
            own = [weight.detach().clone() for weight in self.weights]
            try:
                share_weights(self.trainer, self.weights)
                self._exchange(job)
            finally:
                for weight, before in zip(self.weights, own, strict=True):
                    weight.detach().copy_(before)

    def optimize(
        self, lm: LanguageModel, columns: Sequence[Column], layer: int, options: TargetOptions | None = None
    ) -> Targets:
        """On rank zero: `optimize_targets`, each rank a share of the columns.

        Args:
            lm: The language model.
            columns: What should be said.
            layer: The block that takes the offset.
            options: How to optimise.
        """
        if len(columns) < 2:
            return optimize_targets(lm, columns, layer, options)
        job = [_moved(column) for column in columns], layer, options or TargetOptions()
        self.trainer.strategy.broadcast(job)
        share_weights(self.trainer, self.weights)
        shares = self._exchange(job)
        for _, fault in shares:
            if fault is not None:
                raise fault
        return _together([found for found, _ in shares if found is not None], columns, lm)

    def _exchange(self, job: Job) -> list[Share]:
        """Optimise this rank's share; what all ranks have, by rank."""
        rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        share: Share = None, None
        try:
            if mine := job[0][rank::size]:
                share = _on_cpu(optimize_targets(self.lm, mine, *job[1:])), None
        except EditError as error:
            share = None, error
        except Exception as error:  # told to rank zero, which raises it
            why = f"{type(error).__name__}: {error}"
            share = None, StrategyError(f"rank {rank} could not find its targets ({why}); expected no error there.")
        shares: list[Any] = [None] * size
        torch.distributed.all_gather_object(shares, share)
        return shares


def _moved(column: Column) -> Column:
    """A column without tensors on a device that other processes do not have."""
    z, center = (None if value is None else value.cpu() for value in (column.z, column.center))
    return replace(column, z=z, center=center)


def _on_cpu(found: Targets) -> Targets:
    return replace(found, z=found.z.cpu(), start=found.start.cpu(), loss=found.loss.cpu())


def _together(shares: Sequence[Targets], columns: Sequence[Column], lm: LanguageModel) -> Targets:
    """The shares of all ranks in the order of the columns: column i was the share of rank i modulo their number."""
    size = len(shares)

    def woven(name: str) -> Tensor:
        parts = [getattr(found, name) for found in shares]
        return torch.stack([parts[i % size][i // size] for i in range(len(columns))])

    z, start, loss = (woven(name).to(lm.device) for name in ("z", "start", "loss"))
    return Targets(z, start, loss, woven("steps"), [column.id for column in columns])
