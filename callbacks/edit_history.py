"""What a monitor has measured of edits, row by row, and what a table says of all of it.

Knows names of numbers. Refuses to know how and when they are measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, float]
PLACE = ("count", "step")
"""What a row says beside its numbers: edits and optimizer steps so far."""


@dataclass(slots=True)
class EditHistory:
    """Measurements in the order in which they were made.

    Args:
        rows: Of everything so far, each with `count` and `step`.
        batches: Of each commit right after it, likewise.
    """

    rows: list[Row] = field(default_factory=list)
    batches: list[Row] = field(default_factory=list)

    def add(self, count: int, step: int, values: Mapping[str, float]) -> Row:
        """Enter a measurement of everything so far; its numbers by log key.

        Args:
            count: Edits so far.
            step: Optimizer steps so far.
            values: Numbers by name.
        """
        self.rows.append({"count": count, "step": step, **values})
        return {"edit/count": count, **{f"edit/{name}": value for name, value in values.items()}}

    def add_batch(self, count: int, step: int, values: Mapping[str, float]) -> Row:
        """Enter a measurement of the last commit alone; its numbers by log key.

        Args:
            count: Edits so far.
            step: Optimizer steps so far.
            values: Numbers by name; where there are none nothing is entered.
        """
        if values:
            self.batches.append({"count": count, "step": step, **values})
        return {"edit/count": count, **{f"edit/{name}": value for name, value in values.items()}}

    def summary(self) -> Row:
        """The last numbers of everything so far, and means over commits of what belongs to one commit."""
        last = {name: value for row in self.rows[-1:] for name, value in row.items() if name not in PLACE}
        means = {name: _mean(self.batches, name) for row in self.batches for name in row if name not in PLACE}
        if any("commit_locality" in row for row in self.rows):
            means["commit_locality"] = _mean(self.rows, "commit_locality")
        return {**last, **means}

    def state_dict(self) -> dict[str, Any]:
        """Plain containers."""
        return {"history": [dict(row) for row in self.rows], "batches": [dict(row) for row in self.batches]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on behind what another one measured.

        Args:
            state: What `state_dict` gave; other entries are not looked at.
        """
        self.rows = [dict(row) for row in state["history"]]
        self.batches = [dict(row) for row in state["batches"]]


def _mean(rows: Sequence[Mapping[str, float]], name: str) -> float:
    """Mean over the rows that have a number."""
    values = [row[name] for row in rows if name in row]
    return sum(values) / len(values)
