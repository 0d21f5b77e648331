"""Requests about the mayor of Quellin, for tests of what a request is."""

from typing import Any

from lightning_edit.requests import EditRequest

FULL = {
    "id": "a",
    "prompt": "The mayor of Quellin is",
    "subject": "Quellin",
    "target": "Oda Brandt",
    "old": "Pim Sarko",
    "relation": "mayor",
    "paraphrases": ["Quellin is governed by"],
    "locality": {"near": [{"prompt": "The mayor of Vashti is", "answers": ["Al", "Alan"]}]},
    "portability": {"hop": [{"prompt": "The mayor of Quellin was born in", "answers": ["Ulm"]}]},
    "sentence": "Oda Brandt is the mayor of Quellin.",
    "target_aliases": ["Ms Brandt"],
    "group": "the election",
}


def request(**changes: Any) -> EditRequest:
    """A request with the fields that every one has, made in Python."""
    return EditRequest(**{"id": "a", "prompt": "The mayor of Quellin is", "target": "Oda", **changes})


def full(**changes: Any) -> EditRequest:
    """A request with every field, as it comes from a file."""
    return EditRequest.from_dict({**FULL, **changes})
