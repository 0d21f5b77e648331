"""Rows of tokens as training batches, in an order that a seed and an epoch fix, with a place to go on from.

Knows ranks only as a share of every global batch: rank r of R takes rows r, r + R, ..., so R processes together see
what one process with an R times larger batch sees. Refuses to know texts and tokenizers (`text.py`).
"""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from lightning_edit.errors import EditError, StateError


class RowLoader:
    """Batches of rows; an iterable with `state_dict`, which Lightning saves and restores in the middle of an epoch.

    The order of epoch e is a permutation drawn from (seed, e).

    Args:
        rows: Tensors of equal first dimension.
        batch_size: Rows of a batch on each rank.
        seed: Seed of the order; None keeps the order as it is.
        rank: Number of this process.
        world: Number of processes.
        drop_last: Leave rows that fill no batch on every rank for another epoch, unless there is no other batch. Else
            every row is shown, and a few twice where the ranks could not share them evenly.
    """

    def __init__(
        self,
        rows: dict[str, Tensor],
        batch_size: int,
        seed: int | None = 0,
        rank: int = 0,
        world: int = 1,
        drop_last: bool = True,
    ) -> None:
        self.rows = rows
        self._count = len(next(iter(rows.values())))
        if self._count < world or batch_size < 1:
            raise EditError(
                f"found {self._count} rows of tokens for {world} processes and batch_size={batch_size}; expected at "
                "least one row for each process and a batch of at least one. Give more text, or a smaller max_length."
            )
        self.batch_size = batch_size
        self.seed = seed
        self.rank, self.world = rank, world
        self.drop_last = drop_last
        self.epoch = 0
        self._next = 0  # the batch that follows what was handed out
        self._resume: tuple[int, int] | None = None

    @property
    def batch_sampler(self) -> SimpleNamespace:
        """Where Lightning looks for `set_epoch`."""
        return SimpleNamespace(sampler=self)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next.

        Args:
            epoch: Its number, from 0.
        """
        self.epoch = epoch

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        whole, rest = divmod(self._count, self.batch_size * self.world)
        return whole + bool(rest and (whole == 0 or not self.drop_last))

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Batches of the epoch, or of what a restored state left of it; nothing happens before the first is taken."""
        resume, self._resume = self._resume, None
        order = self._order()
        start = resume[1] if resume and resume[0] == self.epoch else 0
        span = self.batch_size * self.world
        for batch in range(start, len(self)):
            chosen = order[batch * span : (batch + 1) * span][self.rank :: self.world]
            self._next = batch + 1
            yield {name: values[chosen] for name, values in self.rows.items()}

    def state_dict(self) -> dict[str, Any]:
        """Epoch and the next batch in it, with what fixes the order."""
        return {"epoch": self.epoch, "batch": self._next, **self._facts()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another loader of the same rows stood.

        Args:
            state: What `state_dict` gave.
        """
        odd = {name: (state.get(name), value) for name, value in self._facts().items() if state.get(name) != value}
        if odd:
            found = "; ".join(f"{name} was {was!r} and is now {now!r}" for name, (was, now) in odd.items())
            raise StateError(
                f"the checkpoint was written in the middle of an epoch of other batches: {found}; expected the same "
                "training data, batch size and number of processes. Restore them, or resume from the end of an epoch."
            )
        self._resume = (state["epoch"], state["batch"])
        self.epoch, self._next = self._resume

    def _facts(self) -> dict[str, Any]:
        """What fixes the batches of an epoch."""
        count, length = next(iter(self.rows.values())).shape
        return {"rows": count, "length": length, "global_batch": self.batch_size * self.world, "seed": self.seed}

    def _order(self) -> Tensor:
        """Order of the rows in this epoch."""
        order = torch.arange(self._count)
        if self.seed is not None:
            generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
            order = torch.randperm(self._count, generator=generator)
        return torch.cat([order, order[: -self._count % self.world]])
