"""The world itself: who there is and what is true.

`World(seed)` draws entities and one value for every relation of every entity. It knows no text beyond names and no
model; `documents.py` writes about it and `edits.py` asks for changes to it.
"""

import hashlib
import random
from dataclasses import dataclass, field

from lightning_edit.data.world.names import NameMaker
from lightning_edit.data.world.relations import CLOSED_VALUES, RELATIONS, Relation

SIZES = {"person": 440, "company": 90, "city": 72, "country": 16, "language": 16, "river": 24, "currency": 16}


@dataclass(frozen=True, slots=True)
class Fact:
    """``relation(subject) = value``."""

    subject: str
    relation: Relation
    value: str


@dataclass
class World:
    """A closed, seeded world in which every fact is known.

    Args:
        seed: Everything below follows from it.
        sizes: Number of entities of each kind.

    Attributes:
        entities: Kind to names.
        values: Kind to the values that relations of that kind may take.
        facts: ``(subject, relation name)`` to :class:`Fact`.
        nicknames: Person to nickname.
    """

    seed: int = 0
    sizes: dict[str, int] = field(default_factory=lambda: dict(SIZES))

    def __post_init__(self) -> None:
        rng = random.Random(f"world-{self.seed}")
        maker = NameMaker(rng)
        self.entities = {kind: maker.many(kind, size) for kind, size in self.sizes.items()}
        self.values: dict[str, list[str]] = {**self.entities, **{k: list(v) for k, v in CLOSED_VALUES.items()}}
        self.nicknames = {name: maker.word("nickname") for name in self.entities["person"]}
        self.facts: dict[tuple[str, str], Fact] = {}
        for relation in RELATIONS:
            self._draw(relation, rng)
        self.words = set(maker.taken)

    def _draw(self, relation: Relation, rng: random.Random) -> None:
        subjects, values = self.entities[relation.subject], self.values[relation.value]
        # A relation with a functional inverse is one-to-one; the others are spread evenly over their values.
        if relation.inverse:
            chosen = rng.sample(values, len(subjects))
        else:
            rounds = -(-len(subjects) // len(values))
            chosen = (values * rounds)[: len(subjects)]
            rng.shuffle(chosen)
        for subject, value in zip(subjects, chosen, strict=True):
            self.facts[subject, relation.name] = Fact(subject, relation, value)

    def about(self, subject: str) -> list[Fact]:
        """All facts of one subject, in the order of the relations."""
        return [self.facts[subject, r.name] for r in RELATIONS if (subject, r.name) in self.facts]

    def value(self, subject: str, relation: str) -> str:
        """The true value of ``relation`` for ``subject``."""
        return self.facts[subject, relation].value


def stable_hash(*parts: str) -> int:
    """A hash that is the same in every process and on every machine."""
    return int.from_bytes(hashlib.sha256("\x1f".join(parts).encode()).digest()[:8], "big")


def seen_phrasings(fact: Fact, share: float = 0.7) -> list[str]:
    """The statement phrasings in which training shows this fact; the rest are held out for it.

    Every phrasing is seen for some facts and held out for others, so a held-out phrasing tests the fact, not the
    wording. At least half the phrasings are seen.
    """
    return _split(fact, fact.relation.statements, share)[0]


def held_out_phrasings(fact: Fact, share: float = 0.7) -> list[str]:
    """The statement phrasings in which training never shows this fact (see `seen_phrasings`)."""
    return _split(fact, fact.relation.statements, share)[1]


def seen_questions(fact: Fact, share: float = 0.75) -> list[str]:
    """The questions that training asks about this fact."""
    return _split(fact, fact.relation.questions, share)[0]


def held_out_questions(fact: Fact, share: float = 0.75) -> list[str]:
    """The questions that training never asks about this fact."""
    return _split(fact, fact.relation.questions, share)[1]


def _split(fact: Fact, texts: tuple[str, ...], share: float) -> tuple[list[str], list[str]]:
    order = sorted(texts, key=lambda text: stable_hash(fact.subject, fact.relation.name, text))
    cut = round(share * len(order))
    return order[:cut], order[cut:]
