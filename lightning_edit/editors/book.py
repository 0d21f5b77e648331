"""What an editor remembers beside its ledgers, and its plain form for a checkpoint.

The book says which requests are at work, which of them share a column, and what may come back. Written down it is
tensors and plain containers, which `torch.load(weights_only=True)` reads. This file knows no model.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lightning_edit.editors.active import ActiveColumn, ActiveRequest, ActiveSet
from lightning_edit.requests import EditRequest

Group = tuple[str, ...]  # ids of the requests that share a column


@dataclass(frozen=True, slots=True)
class Book:
    """A value, so that going back costs nothing.

    Args:
        active: Requests at work.
        columns: Columns in the ledgers.
        archive: Columns that were in the ledgers and may come back when a request is undone.
    """

    active: ActiveSet = field(default_factory=ActiveSet)
    columns: Mapping[Group, ActiveColumn] = field(default_factory=dict)
    archive: Mapping[Group, ActiveColumn] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers."""
        return {
            "requests": [_plain_request(entry) for entry in self.active.requests.values()],
            "shelf": [_plain_request(entry) for entry in self.active.shelf.values()],
            "applied": self.active.applied,
            "columns": [_plain_column(column) for column in self.columns.values()],
            "archive": [_plain_column(column) for column in self.archive.values()],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Book":
        """The book that a state describes.

        Args:
            state: What `state_dict` gave.
        """
        active = ActiveSet(_requests(state["requests"]), _requests(state["shelf"]), state["applied"])
        return cls(active, _columns(state["columns"]), _columns(state["archive"]))


def _plain_request(entry: ActiveRequest) -> dict[str, Any]:
    return {
        "request": entry.request.to_dict(),
        "number": entry.number,
        "signature": list(entry.signature),
        "held": entry.held,
        "replaced": list(entry.replaced),
    }


def _requests(states: list[dict[str, Any]]) -> dict[str, ActiveRequest]:
    entries = [
        ActiveRequest(
            EditRequest.from_dict(state["request"]),
            state["number"],
            tuple(state["signature"]),
            state["held"],
            tuple(state["replaced"]),
        )
        for state in states
    ]
    return {entry.request.id: entry for entry in entries}


def _plain_column(column: ActiveColumn) -> dict[str, Any]:
    pairs = {str(layer): list(pair) for layer, pair in (column.pairs or {}).items()}
    return {
        "requests": list(column.requests),
        "z": column.z,
        "center": column.center,
        "loss": column.loss,
        "pairs": pairs,
    }


def _columns(states: list[dict[str, Any]]) -> dict[Group, ActiveColumn]:
    columns = [
        ActiveColumn(
            tuple(state["requests"]),
            state["z"].clone(),
            state["center"].clone(),
            state["loss"],
            {int(layer): (key.clone(), value.clone()) for layer, (key, value) in state["pairs"].items()} or None,
        )
        for state in states
    ]
    return {column.requests: column for column in columns}
