"""The arithmetic of the metrics: shares of right answers.

Knows verdicts (right or not) and the kinds they belong to. Refuses to know who judged, and where they are summed up
over batches and processes (`metrics/shares.py`).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_edit.errors import EditError

Verdicts = Tensor | Sequence[bool]
"""One verdict per probe: a boolean tensor of any shape, or a sequence of bool."""


def share_right(right: Verdicts) -> Tensor:
    r"""Share of right answers, $\frac{1}{N} \sum_i 1[\text{answer}_i \text{ is right}]$.

    Args:
        right: Verdicts. The share of none is nan.

    Example:
        >>> share_right([True, False, True, True])
        tensor(0.7500)
    """
    verdicts = as_verdicts(right)
    return verdicts.sum() / verdicts.numel()


def share_right_by_kind(right: Verdicts, kinds: Sequence[str]) -> dict[str, Tensor]:
    """Share of right answers among the probes of each kind, in order of first appearance.

    Args:
        right: Verdicts.
        kinds: The kind of each probe.

    Example:
        >>> share_right_by_kind([True, False, True], ["neighborhood", "neighborhood", "distraction"])
        {'neighborhood': tensor(0.5000), 'distraction': tensor(1.)}
    """
    names = list(dict.fromkeys(kinds))
    right_of, total_of = count_by_kind(right, kinds, names)
    return {name: right_of[i] / total_of[i] for i, name in enumerate(names)}


def count_by_kind(right: Verdicts, kinds: Sequence[str], names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Count right answers and all answers of each kind.

    Args:
        right: Verdicts.
        kinds: The kind of each probe.
        names: The kinds to count, in the order of the result.

    Returns:
        Two int64 tensors of shape (len(names),).
    """
    verdicts = as_verdicts(right).flatten()
    if len(kinds) != verdicts.numel():
        raise EditError(f"Found {verdicts.numel()} verdicts and {len(kinds)} kinds, expected one kind per verdict.")
    unknown = sorted(set(kinds) - set(names))
    if unknown:
        raise EditError(f"Found probes of the kinds {unknown}, expected {list(names)}; name every kind when building.")
    index = torch.tensor([list(names).index(kind) for kind in kinds], dtype=torch.long, device=verdicts.device)
    zeros = torch.zeros(len(names), dtype=torch.long, device=verdicts.device)
    return zeros.index_add(0, index, verdicts.long()), zeros.index_add(0, index, torch.ones_like(index))


def as_verdicts(right: Verdicts) -> Tensor:
    """Verdicts as a boolean tensor; anything but booleans is refused, because 0.9 is not a verdict.

    Args:
        right: Verdicts.
    """
    if not isinstance(right, Tensor):
        right = torch.tensor(list(right), dtype=None if len(right) else torch.bool)
    if right.dtype != torch.bool:
        raise EditError(f"Found verdicts of {right.dtype}, expected booleans: judge the answers first.")
    return right
