r"""WISE's side memories: what was learned, shard by shard, and what becomes of shards that are full.

A side memory is kept as the task vector \(\tau = W' - W\), its difference from the main memory W: what training does to
W reaches both. The current shard learns; when it has taken its number of edits it is put by and a new one begins at
\(\tau = 0\) with another random mask. Several finished shards are merged into one memory, whose threshold is the
smallest of theirs. Everything here is a value: a change makes a new one. This file knows no model.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor

from lightning_edit.editors.forward_settings import WiseSettings
from lightning_edit.editors.wise.merging import merge

OLDER, NEWER = 0.6, 0.4  # shares of the two where there is one merged memory to which another is added


@dataclass(frozen=True, slots=True)
class Memory:
    """One side memory.

    Args:
        task: Its task vector (d, n), in main memory.
        threshold: Smallest activation difference of its edits; infinite where there are none.
        edits: Number of its edits.
        merged: Whether it was made of several shards.
    """

    task: Tensor
    threshold: float = float("inf")
    edits: int = 0
    merged: bool = False

    def learned(self, task: Tensor, difference: float) -> "Memory":
        """The memory after one more edit.

        Args:
            task: Its task vector.
            difference: The activation difference of the edited prompt.
        """
        return replace(self, task=task, threshold=min(self.threshold, difference), edits=self.edits + 1)


@dataclass(frozen=True, slots=True)
class Side:
    """All side memories.

    Args:
        current: The shard that learns.
        finished: Full shards and merged memories, oldest first.
        shard: Number of the current shard.
        edits: Number of all edits.
    """

    current: Memory
    finished: tuple[Memory, ...] = ()
    shard: int = 0
    edits: int = 0

    @classmethod
    def blank(cls, outputs: int, inputs: int, dtype: torch.dtype) -> "Side":
        """Nothing learned.

        Args:
            outputs: Length d of the projection's output.
            inputs: Length n of its input.
            dtype: Precision of the task vectors.
        """
        return cls(Memory(torch.zeros(outputs, inputs, dtype=dtype)))

    @property
    def memories(self) -> list[Memory]:
        """The memories that a prompt may be routed to: those with edits."""
        return [memory for memory in (*self.finished, self.current) if memory.edits]

    def after(self, task: Tensor, difference: float, settings: WiseSettings, seed: int) -> "Side":
        """The memories after the current shard has learned one more request.

        Args:
            task: The current shard's new task vector.
            difference: The activation difference of the edited prompt.
            settings: Sizes of shards and how they are merged.
            seed: Seed of a merge that draws.
        """
        current = self.current.learned(task, difference)
        side = replace(self, current=current, edits=self.edits + 1)
        if current.edits < settings.shard_edits:
            return side
        fresh = Memory(torch.zeros_like(current.task))
        side = replace(side, current=fresh, finished=(*self.finished, current), shard=self.shard + 1)
        return side._merged(settings, seed)

    def _merged(self, settings: WiseSettings, seed: int) -> "Side":
        """Full shards put together, once there are enough of them."""
        full = [memory for memory in self.finished if not memory.merged]
        if len(full) < settings.merge_shards:
            return self
        older = [memory for memory in self.finished if memory.merged]
        task = merge([memory.task for memory in full], settings.merge, settings.kept, seed + self.shard)
        new = Memory(task, min(memory.threshold for memory in full), sum(memory.edits for memory in full), True)
        together = (*older, new) if settings.retrieve else (reduce(_mixed, (*older, new)),)
        return replace(self, finished=together)

    # -- state -----------------------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """All of it as tensors by name."""
        found = {"numbers": torch.tensor([self.shard, self.edits])}
        for index, memory in enumerate((*self.finished, self.current)):
            found[f"{index}.task"] = memory.task
            found[f"{index}.threshold"] = torch.tensor([memory.threshold], dtype=torch.float64)
            found[f"{index}.counts"] = torch.tensor([memory.edits, int(memory.merged)])
        return found

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Side":
        """The memories that `tensors` gave.

        Args:
            tensors: What it gave.
        """
        memories: list[Memory] = []
        while (task := tensors.get(f"{len(memories)}.task")) is not None:
            edits, merged = tensors[f"{len(memories)}.counts"].tolist()
            threshold = float(tensors[f"{len(memories)}.threshold"])
            memories.append(Memory(task.cpu(), threshold, edits, bool(merged)))
        shard, edits = tensors["numbers"].tolist()
        return cls(memories[-1], tuple(memories[:-1]), shard, edits)


def _mixed(older: Memory, newer: Memory) -> Memory:
    """One memory out of an older and a newer merged one."""
    task = OLDER * older.task + NEWER * newer.task
    return Memory(task, min(older.threshold, newer.threshold), older.edits + newer.edits, True)
