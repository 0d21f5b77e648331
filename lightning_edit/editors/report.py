"""What an edit did, in plain numbers.

Reports go to loggers, guards and tables. This file knows how to hold and time them, not how edits are made.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from lightning_edit.errors import EditError


class EditRefused(EditError):
    """A guard looked at the result of an edit and did not want it; weights and ledger are as before."""


@dataclass(slots=True)
class EditReport:
    """What one change of the active set did.

    Args:
        kind: `edit`, `undo`, `repair` or `rebuild`.
        count: Requests that were added or taken back.
        ids: Their ids.
        active: Requests that are at work afterwards.
        replaced: Ids of older requests that the new ones contradict and replace.
        restored: Ids of replaced requests that came back.
        losses: Final loss of each column that was optimised, by column id.
        delta_norm: Frobenius norm of what was added to the edited weights, drift excluded.
        pending_norm: Frobenius norm of deployed minus exact weights when they were deployed last: what a restriction
            and rounding have left out. With `deployment` `feedback` or `flush` the next deployment makes up for it;
            with `project_total` it is what the whole update lacks. With `none` nothing makes up for it: it is all that
            was left out so far, or where batches are absorbed what the last one's step lacks, since the next exact
            weight starts from the deployed one.
        drift_norm: Frobenius norm of what had moved the weights since the last deployment.
        notes: Remarks for a person, such as keys that are nearly equal though their targets differ.
        seconds: Wall-clock time of each phase, and `total`.
    """

    kind: str = "edit"
    count: int = 0
    ids: list[str] = field(default_factory=list)
    active: int = 0
    replaced: list[str] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)
    losses: dict[str, float] = field(default_factory=dict)
    delta_norm: float = 0.0
    pending_norm: float = 0.0
    drift_norm: float = 0.0
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def seconds_per_edit(self) -> float:
        """Total time divided by the number of requests; the total itself where there were none."""
        return self.seconds.get("total", 0.0) / max(self.count, 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, ready for JSON."""
        return asdict(self)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the time of a block to a phase.

        Args:
            phase: Name of the phase.
        """
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - begin


Guard = Callable[[EditReport], bool]
"""Looks at a report when the model carries the change; whatever it does not find true is taken back."""
