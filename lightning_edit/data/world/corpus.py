"""The training text of the embedded model, as an endless seeded stream of documents.

It decides how much of what is read and who is active when; what the texts say is decided elsewhere.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from lightning_edit.data.world.arithmetic import arithmetic
from lightning_edit.data.world.documents import Writer, newcomer
from lightning_edit.data.world.facts import World
from lightning_edit.data.world.names import NameMaker
from lightning_edit.data.world.tasks import MIXTURES, Task

SHARES = {
    "facts": {"statements": 0.30, "biography": 0.26, "story": 0.05, "arithmetic": 0.06},
    "questions": {"statements": 0.13, "biography": 0.10, "story": 0.03, "arithmetic": 0.12},
    "choices": {"statements": 0.10, "biography": 0.08, "story": 0.02, "arithmetic": 0.10},
}
"""Shares of documents by focus; the rest are questions, in the proportions of `tasks.MIXTURES`.

Facts are learned first, from prose; then questions, for which the facts must be there; then choices, which are
learned last.
"""

CURRICULUM = ((0.04, 0.12), (0.12, 0.35))
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


def document(writer: Writer, focus: str = "facts") -> Document:
    """One document of the mixture."""
    roll = writer.rng.random()
    for name, share in SHARES[focus].items():
        if roll < share:
            return _task(arithmetic(writer)) if name == "arithmetic" else Document(str(getattr(writer, name)()))
        roll -= share
    tasks = MIXTURES[focus]
    return _task(writer.rng.choices(list(tasks), list(tasks.values()))[0](writer))


def _task(task: Task) -> Document:
    return Document(task.text, len(task.prompt))


def documents(world: World, seed: int, share: float = 1.0, focus: str = "facts") -> Iterator[Document]:
    """Documents about ``world`` without end."""
    writer = Writer(world, random.Random(f"corpus-{world.seed}-{seed}"), share)
    while True:
        yield document(writer, focus)


def tokenizer_text(seed: int, count: int) -> Iterator[str]:
    """Documents of other worlds, so that a tokenizer learns the language and not the names."""
    for index in range(count):
        if index % 200 == 0:
            world = World(seed=10_000 + seed + index)
            writer = Writer(world, random.Random(index))
        yield document(writer).text


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
