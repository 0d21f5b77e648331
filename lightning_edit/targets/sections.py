"""Rows of unlike lengths, run as a few rectangles instead of one.

A column's rows are a request behind contexts, with its target, and short texts whose continuation should stay. Padded
to the longest, most of a batch would be padding. `Sections` sorts rows by length into a few groups, runs each as a
`Tail`, and gives everything back in the order of the rows: whoever holds it need not know that it was cut.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_edit.model.language_model import LanguageModel
from lightning_edit.targets.columns import Place
from lightning_edit.targets.rows import Row
from lightning_edit.targets.tail import Tail

CPU_READING, GPU_READING = 32, 256  # tokens whose pass takes about as long as reading the weights once more


class Sections:
    """Runs what lies above a target, for a batch of rows of any lengths; see `Tail`, which has the same face.

    Args:
        lm: The language model, already borrowed.
        layer: The block that takes the offsets.
        rows: The token rows.
        places: Where in it.
        prefix_cache: Keep attention keys and values of the tokens before the lookup position.
    """

    def __init__(
        self,
        lm: LanguageModel,
        layer: int,
        rows: list[Row],
        places: Sequence[Place] = ("block",),
        prefix_cache: bool = True,
    ) -> None:
        self.lm = lm
        reading = CPU_READING if lm.device.type == "cpu" else GPU_READING
        self.groups = cut([row.tail if prefix_cache else len(row.ids) for row in rows], reading)
        self.tails = [Tail(lm, layer, [rows[i] for i in group], places, prefix_cache) for group in self.groups]
        self._index()

    @property
    def start(self) -> Tensor:
        """The model's own values at each place and each row's lookup position (p, r, d)."""
        return torch.cat([tail.start for tail in self.tails], 1)[:, self._row_at]

    def keep(self, rows: Tensor) -> None:
        """Go on with some rows only.

        Args:
            rows: Indices of the rows to keep, ascending.
        """
        place = {row: number for number, row in enumerate(rows.tolist())}
        left: list[tuple[list[int], Tail]] = []
        for group, tail in zip(self.groups, self.tails, strict=True):
            kept = [i for i, row in enumerate(group) if row in place]
            if kept:
                if len(kept) < len(group):
                    tail.keep(torch.tensor(kept, device=rows.device))
                left.append(([place[group[i]] for i in kept], tail))
        self.groups, self.tails = [group for group, _ in left], [tail for _, tail in left]
        self._index()

    def logits(self, offset: Tensor) -> Tensor:
        """Scores of the next token at every scored position, rows in order, in float32 or better.

        Args:
            offset: What is added at each place and each row's lookup position (p, r, d).

        Returns:
            Logits (scored positions, vocabulary).
        """
        parts = [tail.logits(offset[:, group]) for tail, group in zip(self.tails, self.groups, strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)[self._score_at]

    def _index(self) -> None:
        """Where each row, and each scored position in the order of rows, stands behind the other sections' ones."""
        order = [row for group in self.groups for row in group]
        sizes = [len(scored) for tail in self.tails for scored in tail.scored]
        begins = [sum(sizes[:i]) for i in range(len(sizes))]
        at = sorted(range(len(order)), key=order.__getitem__)
        device = self.lm.device
        self._row_at = torch.tensor(at, device=device)
        self._score_at = torch.tensor([begins[i] + j for i in at for j in range(sizes[i])], device=device)


def cut(lengths: Sequence[int], reading: int) -> list[list[int]]:
    """Groups of rows that take the least time, each in ascending order, those of short rows first.

    A group takes as long as its padded tokens and `reading` more: every group reads all weights.

    Args:
        lengths: Length of each row.
        reading: How many tokens take as long as reading the weights.

    Example:
        >>> cut([9, 1, 1, 1], reading=4)
        [[1, 2, 3], [0]]
        >>> cut([9, 8, 8, 8], reading=4)
        [[0, 1, 2, 3]]
    """
    steps = sorted({*lengths})
    below = [0]  # how many rows are shorter than each step, and all of them at last
    for step in steps:
        below.append(below[-1] + sum(length == step for length in lengths))
    least: list[tuple[int, list[int]]] = [(0, [])]  # of the rows below each step: their cost, and where groups end
    for end in range(1, len(below)):
        ways = [
            (least[start][0] + steps[end - 1] * (below[end] - below[start]) + reading, [*least[start][1], end])
            for start in range(end)
        ]
        least.append(min(ways))
    ends = least[-1][1]
    group = {step: sum(end <= i for end in ends) for i, step in enumerate(steps)}
    return [[i for i, length in enumerate(lengths) if group[length] == number] for number in range(len(ends))]
