"""When edits are due: after which optimizer steps and at the end of which epochs.

Knows that a batch is not a step (gradients accumulate), that a resumed run must not act twice, and that a Trainer's dry
run has very few steps. Refuses to know what is done when it is due.
"""

from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl

from lightning_edit.errors import StrategyError


@dataclass(slots=True)
class Cadence:
    """A rhythm in steps, in epochs, or in both.

    Args:
        every_n_steps: Due after each so many optimizer steps.
        every_n_epochs: Due at the end of each so many epochs.
        last_step: The last optimizer step that was looked at.
        last_epoch: The last epoch whose end was looked at.
        resumed: Whether these come from a checkpoint.
    """

    every_n_steps: int | None = None
    every_n_epochs: int | None = None
    last_step: int = 0
    last_epoch: int = -1
    resumed: bool = False

    def __post_init__(self) -> None:
        for name in ("every_n_steps", "every_n_epochs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise StrategyError(f"found {name}={value}, expected a number of at least 1, or None for never")

    def due(self, step: int | None, epoch: int | None) -> bool:
        """Whether it is due after an optimizer step, or at the end of an epoch.

        Args:
            step: Number of optimizer steps taken; None at the end of an epoch.
            epoch: Index of the epoch that ends, from 0; None after a step.
        """
        if step is not None:
            return self.every_n_steps is not None and step % self.every_n_steps == 0
        return epoch is not None and self.every_n_epochs is not None and (epoch + 1) % self.every_n_epochs == 0

    def new_step(self, trainer: "pl.Trainer") -> bool:
        """Whether an optimizer step has been taken since this was last asked.

        Args:
            trainer: The Trainer.
        """
        if trainer.sanity_checking or trainer.global_step <= self.last_step:
            return False
        self.last_step = trainer.global_step
        return True

    def new_epoch(self, trainer: "pl.Trainer") -> bool:
        """Whether an epoch has ended since this was last asked.

        Args:
            trainer: The Trainer.
        """
        if trainer.sanity_checking or trainer.current_epoch <= self.last_epoch:
            return False
        self.last_epoch = trainer.current_epoch
        return True

    def missed_epoch(self, trainer: "pl.Trainer") -> int | None:
        """The epoch before this one, if its end was never looked at.

        A run that resumes from a checkpoint of an epoch's last batch goes on with the next epoch, and Lightning does
        not call the hooks of the end of the epoch before.

        Args:
            trainer: The Trainer.
        """
        before = trainer.current_epoch - 1
        if not self.resumed or before <= self.last_epoch:
            return None
        self.last_epoch = before
        return before

    def restart(self) -> None:
        """Forget the last fit: its Trainer counted its own steps."""
        self.last_step, self.last_epoch, self.resumed = 0, -1, False

    def state_dict(self) -> dict[str, Any]:
        """Where the rhythm stands."""
        return {"last_step": self.last_step, "last_epoch": self.last_epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another run stood.

        Args:
            state: What `state_dict` gave.
        """
        self.last_step, self.last_epoch, self.resumed = state["last_step"], state["last_epoch"], True
