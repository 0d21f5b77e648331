"""The training text of the embedded model, as an endless seeded stream of documents.

It decides how much of what is read and who is active when; what the texts say is decided elsewhere.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from lightning_edit.data.world.arithmetic import arithmetic
from lightning_edit.data.world.documents import Writer, newcomer
from lightning_edit.data.world.facts import World
from lightning_edit.data.world.names import NameMaker
from lightning_edit.data.world.tasks import (
    Task,
    again,
    choice,
    closed_book,
    event,
    nickname,
    numbered_selection,
    reading,
    selection,
    two_hop,
    unknown,
)

Focus = Literal["facts", "questions", "choices"]

PROSE = {"statements": 0.46, "biography": 0.44, "story": 0.10}
"""Kinds of prose, relative to each other."""

MIXTURES: dict[Focus, dict[Callable[[Writer], Task], float]] = {
    "facts": {
        closed_book: 0.18,
        unknown: 0.06,
        reading: 0.20,
        numbered_selection: 0.22,
        two_hop: 0.09,
        nickname: 0.05,
        choice: 0.09,
        event: 0.04,
        arithmetic: 0.07,
    },
    "questions": {
        closed_book: 0.14,
        unknown: 0.06,
        reading: 0.18,
        numbered_selection: 0.22,
        two_hop: 0.11,
        nickname: 0.05,
        choice: 0.08,
        event: 0.03,
        arithmetic: 0.07,
        again: 0.06,
    },
    "choices": {
        closed_book: 0.10,
        unknown: 0.06,
        reading: 0.23,
        selection: 0.29,
        two_hop: 0.07,
        nickname: 0.04,
        choice: 0.06,
        event: 0.04,
        arithmetic: 0.11,
    },
}
"""Kinds of questions, relative to each other, by what training focuses on."""

PROSE_SHARES: dict[Focus, tuple[float, float]] = {"facts": (0.6, 0.1), "questions": (0.12, 0.12), "choices": (0.1, 0.1)}
"""Share of prose among all documents at the start and at the end.

Facts are learned from prose; once they are there, more questions can be asked.
"""

CURRICULUM = ((0.05, 0.12), (0.12, 0.35))
"""Until this share of training, only this share of every kind of entity is written about."""


def active_share(progress: float) -> float:
    """The share of entities that texts are about after ``progress`` (0..1) of training."""
    return next((share for until, share in CURRICULUM if progress < until), 1.0)


@dataclass(frozen=True, slots=True)
class Document:
    """A text and the character from which it is learned.

    Prose is learned whole. Of a task only the response is: its prompt may state what is false, and a model that
    learned to predict that would forget what is true.
    """

    text: str
    learn_from: int = 0


def prose_share(progress: float, focus: Focus = "facts") -> float:
    """The share of prose among documents after ``progress`` (0..1) of training."""
    first, last = PROSE_SHARES[focus]
    return first + (last - first) * progress


def document(writer: Writer, progress: float, focus: Focus = "facts") -> Document:
    """One document, as it is read after ``progress`` (0..1) of training."""
    if writer.rng.random() < prose_share(progress, focus):
        kind = writer.rng.choices(list(PROSE), list(PROSE.values()))[0]
        return Document(str(getattr(writer, kind)()))
    tasks = MIXTURES[focus]
    task = writer.rng.choices(list(tasks), list(tasks.values()))[0](writer)
    return Document(task.text, len(task.prompt))


def documents(world: World, seed: int, progress: float = 1.0) -> Iterator[Document]:
    """Documents about all of ``world`` without end, as they are read after ``progress`` (0..1) of training."""
    writer = Writer(world, random.Random(f"corpus-{world.seed}-{seed}"))
    while True:
        yield document(writer, progress)


def tokenizer_text(seed: int, count: int) -> Iterator[str]:
    """Documents of other worlds, so that a tokenizer learns the language and not the names."""
    for index in range(count):
        if index % 200 == 0:
            world = World(seed=10_000 + seed + index)
            writer = Writer(world, random.Random(index))
        yield document(writer, progress=0.5).text


def next_year(world: World, seed: int, count: int) -> list[str]:
    """Documents that are new to a model of ``world``: people who arrive in the following year, and what they do."""
    rng = random.Random(f"next-year-{world.seed}-{seed}")
    maker = NameMaker(rng, world.words)
    writer = Writer(world, rng, year=2041)
    people = [newcomer(world, rng, maker) for _ in range(max(8, count // 12))]
    texts = []
    for _ in range(count):
        facts = rng.choice(people)
        name = facts[0].subject
        opening = rng.choice(
            (
                f"In 2041 {name} came to {writer.subject('city')[0]}.",
                f"New in town: {name}.",
                f"The paper of 2041 writes about {name}.",
                f"{name} arrived in 2041.",
            )
        )
        texts.append(f"{opening} {writer.biography(name, 'person', facts)}")
    return texts
