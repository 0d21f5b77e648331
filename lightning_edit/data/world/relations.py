"""The relations of the world and how to say them, as read from `relations.yaml`.

A relation maps a subject of one kind to exactly one value. A phrasing is the text before the value, with ``{s}`` for
the subject: ``"{s} works for"`` + ``" " + value`` + ``"."`` is a sentence. This file knows no entity.
"""

from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml


@dataclass(frozen=True, slots=True)
class Relation:
    """One functional relation.

    Args:
        name: Unique name, ``kind.attribute``.
        subject: Kind of the subject.
        value: Kind of the value.
        statements: Sentence beginnings; the value follows.
        questions: Questions whose answer is the value.
        clause: A noun phrase for the value, for two-hop questions: ``"the employer of {s}"``.
        inverse: Sentence beginnings about the value that end in the subject; empty when the inverse is not functional.
        novel: Beginnings never used in training, for no subject at all.
    """

    name: str
    subject: str
    value: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    clause: str
    inverse: tuple[str, ...] = ()
    novel: tuple[str, ...] = ()


def _read() -> tuple[tuple[Relation, ...], dict[str, tuple[str, ...]]]:
    text = (resources.files(__package__) / "relations.yaml").read_text(encoding="utf-8")
    data = yaml.safe_load(text)
    rows: list[dict[str, Any]] = [
        {key: tuple(v) if isinstance(v, list) else v for key, v in row.items()} for row in data["relations"]
    ]
    return tuple(Relation(**row) for row in rows), {kind: tuple(names) for kind, names in data["values"].items()}


RELATIONS, CLOSED_VALUES = _read()
"""All relations, and the kinds whose values are ordinary words; all other kinds get invented names."""

BY_NAME = {relation.name: relation for relation in RELATIONS}
