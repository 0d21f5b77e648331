"""One edit on many processes.

Rank zero alone computes an edit and holds the ledger; the weights it wrote go to the others, so ranks stay equal bit
for bit whatever their hardware rounds like, and a fault on rank zero is a fault everywhere instead of a hang. Refuses
strategies that cut parameters into pieces: there, "the weight" is on no single rank.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import lightning.pytorch as pl
import torch.distributed
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy
from torch import Tensor

from lightning_edit.errors import StrategyError

Result = TypeVar("Result")


def check_strategy(trainer: "pl.Trainer") -> None:
    """Refuse a strategy under which edits would not reach the weights.

    Args:
        trainer: The Trainer.
    """
    strategy = trainer.strategy
    whole = isinstance(strategy, SingleDeviceStrategy | DDPStrategy) and not isinstance(strategy, DeepSpeedStrategy)
    if not whole:
        raise StrategyError(
            f"found Trainer(strategy={type(strategy).__name__}), which cuts parameters into pieces; expected one "
            'device or DDP, where every process holds whole weights. Use strategy="auto" on one device, or "ddp". '
            "Models that need sharding can be edited outside of training: editor.edit(module, requests)."
        )


def on_rank_zero(trainer: "pl.Trainer", action: Callable[[], Result]) -> Result:
    """Run something on rank zero only; every rank gets the result, or the error.

    Args:
        trainer: The Trainer.
        action: What to run; its result must be picklable.
    """
    if trainer.world_size == 1:
        return action()
    result: Result | None = None
    error: Exception | None = None
    if trainer.is_global_zero:
        try:
            result = action()
        except Exception as caught:  # told to all ranks, then raised
            error = caught
    fault = None if error is None else f"{type(error).__name__}: {error}"
    outcome, fault = trainer.strategy.broadcast((result, fault))
    if error is not None:
        raise error
    if fault is not None:
        raise StrategyError(f"rank 0 could not go on ({fault}); expected no error there. Its own message says more.")
    return outcome  # type: ignore[return-value]  # without a fault there is one


def share_weights(trainer: "pl.Trainer", weights: Iterable[Tensor]) -> None:
    """Give every rank the weights of rank zero, in place.

    Args:
        trainer: The Trainer.
        weights: Parameters, the same ones in the same order on every rank.
    """
    if trainer.world_size == 1:
        return
    meeting = trainer.strategy.root_device  # NCCL knows no other, and when training has ended weights are elsewhere
    for weight in weights:
        shared = weight.detach().to(meeting)
        torch.distributed.broadcast(shared, src=0)
        if shared.device != weight.device:
            weight.detach().copy_(shared)


def share_state(trainer: "pl.Trainer", holder: Any) -> None:
    """Give every rank what rank zero's object holds.

    Args:
        trainer: The Trainer.
        holder: An object with `state_dict` and `load_state_dict`.
    """
    if trainer.world_size == 1:
        return
    state = trainer.strategy.broadcast(holder.state_dict() if trainer.is_global_zero else None)
    if not trainer.is_global_zero:
        holder.load_state_dict(state)
