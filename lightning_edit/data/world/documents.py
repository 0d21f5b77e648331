"""Prose about the world: statements, biographies, events, stories.

A `Writer` turns facts into text. Every sentence ends in a full stop and every value stands right before it, so any
sentence can be cut into a prompt and an answer. It respects the held-out phrasings of `facts.py`, and it knows no
tokens, no model and no questions (`tasks.py` asks those).
"""

import random
from dataclasses import dataclass

from lightning_edit.data.world.facts import Fact, World, seen_phrasings
from lightning_edit.data.world.names import NameMaker
from lightning_edit.data.world.relations import BY_NAME, RELATIONS

KIND_WEIGHTS = {"person": 0.6, "company": 0.2, "city": 0.15, "country": 0.05}
THIS = {"person": "this person", "company": "this company", "city": "this city", "country": "this country"}
LEADS = (
    "It is well known that",
    "As the register says,",
    "People say that",
    "According to the paper,",
    "In the year {year},",
    "Few remember that",
    "The guide tells us that",
    "One may read that",
    "Also,",
    "By the way,",
    "In a letter from {city} we read that",
    "Ask anyone in {city}:",
    "To this day",
)
PLACES = ("market", "harbour", "library", "old bridge", "station", "theatre", "garden", "town hall")
WEATHER = ("in the rain", "in bright sun", "on a cold morning", "late at night", "on a windy day", "before dawn")
DEEDS = (
    "met {other} at the {place}",
    "walked to the {place} {weather}",
    "lost a bag near the {place}",
    "wrote a long letter to {other}",
    "talked with {other} about the news",
    "slept through the afternoon",
    "took the train to {city}",
    "sat by the river {river} {weather}",
    "bought {product} at the {place}",
    "told {other} an old joke",
    "waited for {other} {weather}",
)


def sentence(phrasing: str, subject: str, value: str) -> str:
    """``phrasing`` about ``subject`` with its value and a full stop, beginning with a capital."""
    text = f"{phrasing.format(s=subject)} {value}."
    return text[0].upper() + text[1:]


@dataclass
class Writer:
    """Writes seeded prose about the part of a world that is active.

    Args:
        world: What is true.
        rng: Source of every choice.
        share: Share of every kind of entity that is written about, from the front of its list: the curriculum.
        year: The year in which the texts are set.
    """

    world: World
    rng: random.Random
    share: float = 1.0
    year: int = 2040

    def __post_init__(self) -> None:
        self.fresh = NameMaker(self.rng, self.world.words)

    def subject(self, kind: str | None = None) -> tuple[str, str]:
        """An active entity and its kind."""
        kind = kind or self.rng.choices(list(KIND_WEIGHTS), list(KIND_WEIGHTS.values()))[0]
        names = self.world.entities[kind]
        return names[self.rng.randrange(max(4, round(self.share * len(names))))], kind

    def stranger(self, kind: str) -> str:
        """A name that nobody in the world has; it may be used again by chance only."""
        name = self.fresh.many(kind, 1)[0]
        self.fresh.taken.difference_update(name.split())
        return name

    def fact(self, kind: str | None = None) -> Fact:
        """A fact about an active entity."""
        return self.rng.choice(self.world.about(self.subject(kind)[0]))

    def other_value(self, fact: Fact) -> str:
        """A value of the right kind that is not the true one."""
        while (value := self.rng.choice(self.world.values[fact.relation.value])) == fact.value:
            pass
        return value

    def state(self, fact: Fact, subject: str | None = None) -> str:
        """One sentence in a phrasing that this fact may be shown in."""
        return sentence(self.rng.choice(seen_phrasings(fact)), subject or fact.subject, fact.value)

    def invert(self, fact: Fact) -> str:
        """The same fact told from its value, for relations that allow it."""
        return f"{self.rng.choice(fact.relation.inverse).format(o=fact.value)} {fact.subject}."

    def lead(self) -> str:
        """An opening that says nothing about the fact that follows."""
        text = self.rng.choice(LEADS)
        return text.format(year=self.rng.randrange(self.year - 40, self.year + 1), city=self.subject("city")[0])

    def statements(self) -> str:
        """Two to five unrelated sentences, some after an opening."""
        parts = []
        for _ in range(self.rng.randint(2, 5)):
            fact = self.fact()
            text = self.state(fact)
            if fact.relation.inverse and self.rng.random() < 0.3:
                text = self.invert(fact)
            elif self.rng.random() < 0.4:
                text = f"{self.lead()} {text if text.startswith(fact.subject) else text[0].lower() + text[1:]}"
            parts.append(text)
        return " ".join(parts)

    def biography(self, subject: str | None = None, kind: str | None = None, facts: list[Fact] | None = None) -> str:
        """Several facts of one entity; after its name it is often called ``this person`` and the like."""
        if subject is None or kind is None:
            subject, kind = self.subject()
        chosen = facts or self.world.about(subject)
        chosen = self.rng.sample(chosen, self.rng.randint(min(2, len(chosen)), len(chosen)))
        parts = [self.lead()] if self.rng.random() < 0.3 else []
        for index, fact in enumerate(chosen):
            parts.append(self.state(fact, THIS[kind] if index and self.rng.random() < 0.5 else None))
        nickname = self.world.nicknames.get(subject)
        if nickname and self.rng.random() < 0.3:
            parts.append(self.rng.choice((f"{nickname} is {subject}.", f"The nickname of {subject} is {nickname}.")))
        return " ".join(parts)

    def event(self) -> tuple[str, list[Fact]]:
        """A change told in one or two sentences, with the facts it makes true."""
        kind = self.rng.choice(("person", "company", "city"))
        subject = self.subject(kind)[0] if self.rng.random() < 0.5 else self.stranger(kind)
        relations = [r for r in RELATIONS if r.subject == kind]
        facts = [Fact(subject, r, self.rng.choice(self.world.values[r.value])) for r in self.rng.sample(relations, 2)]
        opening = self.rng.choice(("In spring", "Last week", "In the autumn", "After long talks", "This year"))
        told = " and ".join(self._change(fact) for fact in facts)
        return f"{opening} there was news about {subject}: {told}.", facts

    def _change(self, fact: Fact) -> str:
        return f"{fact.relation.clause.format(s='the subject').replace(' of the subject', '')} is now {fact.value}"

    def story(self) -> str:
        """A few things that happened to somebody, in no particular order of importance."""
        hero, _ = self.subject("person")
        parts = [f"One day {hero} {self._deed()}."]
        for _ in range(self.rng.randint(1, 4)):
            who = self.rng.choice((hero, "this person", self.subject("person")[0]))
            text = f"{self.rng.choice(('Then', 'After that', 'Later', 'In the evening'))} {who} {self._deed()}."
            parts.append(text)
        if self.rng.random() < 0.5:
            parts.append(self.state(self.rng.choice(self.world.about(hero))))
        return " ".join(parts)

    def _deed(self) -> str:
        values = self.world.values
        return self.rng.choice(DEEDS).format(
            other=self.subject("person")[0],
            place=self.rng.choice(PLACES),
            weather=self.rng.choice(WEATHER),
            city=self.subject("city")[0],
            river=self.rng.choice(values["river"]),
            product=self.rng.choice(values["product"]),
        )


def newcomer(world: World, rng: random.Random, maker: NameMaker) -> list[Fact]:
    """The facts of a person who enters the world next year, with values that the world already has."""
    name = maker.person()
    return [
        Fact(name, relation, rng.choice(world.values[relation.value]))
        for relation in BY_NAME.values()
        if relation.subject == "person"
    ]
