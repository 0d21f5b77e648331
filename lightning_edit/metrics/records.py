"""Numbers that are averaged within a record first, and then over records.

The published evaluations of CounterFact and ZsRE weigh records alike, however many prompts each has, and an event is
only known when all its questions are answered. Both need to know which numbers belong together, even where a record is
spread over batches and processes. This file keeps them until then, and knows nothing of what they measure.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lightning_edit.errors import EditError

ALONE = -1
"""The key of a value that is a record of its own."""


def mean_over_records(values: Tensor, records: Sequence[str] | None = None) -> Tensor:
    r"""Mean over records of the mean within each: $\frac{1}{R} \sum_r \frac{1}{N_r} \sum_{i \in r} v_i$.

    Args:
        values: Numbers (m,).
        records: The record that each belongs to; None makes each a record of its own.

    Example:
        >>> mean_over_records(torch.tensor([1.0, 0.0, 1.0]), ["a", "a", "b"])
        tensor(0.7500)
    """
    return record_means(record_keys(records, len(values)), values.double()).mean().float()


def share_of_whole_records(right: Tensor, records: Sequence[str]) -> Tensor:
    r"""Share of records in which every answer is right.

    Args:
        right: Verdicts (m,) of bool.
        records: The record that each belongs to.

    Example:
        >>> share_of_whole_records(torch.tensor([True, False, True]), ["a", "a", "b"])
        tensor(0.5000)
    """
    return (record_means(record_keys(records, len(right)), right.double()) == 1).double().mean().float()


def record_keys(records: Sequence[str] | None, count: int) -> Tensor:
    """A number for each record's name, the same in every process (m,); `ALONE` everywhere without names.

    Args:
        records: The record that each value belongs to.
        count: Number of values.
    """
    if records is None:
        return torch.full((count,), ALONE, dtype=torch.long)
    if len(records) != count:
        raise EditError(f"Found {count} values and {len(records)} records, expected the record of each value.")
    digests = [hashlib.blake2b(str(name).encode(), digest_size=8).digest() for name in records]
    return torch.tensor([int.from_bytes(digest) >> 1 for digest in digests], dtype=torch.long)  # 63 bits: not negative


def record_means(keys: Tensor, values: Tensor) -> Tensor:
    """The mean of each record's values, in float64; records in no particular order.

    Args:
        keys: The record's key of each value (m,).
        values: Numbers (m,).
    """
    own = -1 - torch.arange(len(keys), device=keys.device)  # keys are not negative, so these are nobody's
    _, index = torch.where(keys == ALONE, own, keys).unique(return_inverse=True)
    count = int(index.max()) + 1 if len(index) else 0
    sums = torch.zeros(count, dtype=torch.float64, device=values.device)
    return sums.index_add(0, index, values.double()) / torch.bincount(index, minlength=count)


class RecordMetric(Metric):
    """Keeps values with the keys of their records, over batches and processes.

    States are lists of int64, the values by their bits: a Trainer in half precision casts floating states and leaves
    these alone.

    Args:
        kwargs: Arguments of every torchmetrics metric.
    """

    is_differentiable = False
    full_state_update = False
    record: list[Tensor]
    value: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("record", "value"):
            self.add_state(name, [], dist_reduce_fx="cat")
        self._start()

    def reset(self) -> None:
        """Forget everything seen."""
        super().reset()
        self._start()

    def _start(self) -> None:
        """Put something of the right type into each state: a process without updates would else send floats."""
        for name in self._defaults:
            setattr(self, name, [torch.zeros(0, dtype=torch.long, device=self.device)])

    def _keep(self, values: Tensor, keys: Tensor) -> None:
        """Add values with the keys of their records, (m,) each."""
        self.value.append(values.detach().double().to(self.device).view(torch.long))
        self.record.append(keys.to(self.device))

    def _means(self) -> Tensor:
        """The mean of each record seen, in float64."""
        return record_means(dim_zero_cat(self.record), dim_zero_cat(self.value).view(torch.float64))
