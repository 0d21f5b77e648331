"""Edits of the world: what should change, and every probe that tells whether it did, with exact answers.

One request a subject. A fixed, seeded part of the entities is never edited; neighbours are drawn from it, and a
two-hop probe is used only if its second fact is never edited, so every answer stays right however many requests are
applied.
"""

import random

from lightning_edit.data.world.documents import sentence
from lightning_edit.data.world.facts import (
    Fact,
    World,
    held_out_phrasings,
    held_out_questions,
    seen_phrasings,
    seen_questions,
)
from lightning_edit.requests import EditRequest, Probe

EDITABLE = ("person", "company", "city")
UNTOUCHED = 0.15
"""Share of the entities of every editable kind that no request is about."""


def subjects(world: World, seed: int = 0) -> tuple[list[str], list[str]]:
    """Entities that may be edited, in the order of the stream, and those that never are."""
    rng = random.Random(f"edits-{world.seed}-{seed}")
    edited, untouched = list[str](), list[str]()
    for kind in EDITABLE:
        names = rng.sample(world.entities[kind], len(world.entities[kind]))
        cut = round(UNTOUCHED * len(names))
        untouched += names[:cut]
        edited += names[cut:]
    rng.shuffle(edited)
    return edited, untouched


def world_requests(world: World, count: int, seed: int = 0) -> list[EditRequest]:
    """``count`` counterfactual edits with probes of all four dimensions.

    Args:
        world: What is true before the edits.
        count: Number of requests, one a subject.
        seed: Seed of the choice of subjects, relations, targets and probes.

    Raises:
        ValueError: If the world has fewer subjects to edit.
    """
    edited, untouched = subjects(world, seed)
    if count > len(edited):
        raise ValueError(f"The world has {len(edited)} subjects to edit, {count} were asked for.")
    rng = random.Random(f"requests-{world.seed}-{seed}")
    never, made = set(untouched), list[EditRequest]()
    for index, subject in enumerate(edited[:count]):
        made.append(_request(world, f"world-{seed}-{index:04d}", subject, untouched, never, rng))
    return made


def _request(
    world: World, name: str, subject: str, untouched: list[str], never: set[str], rng: random.Random
) -> EditRequest:
    old = rng.choice(world.about(subject))
    relation = old.relation
    target = rng.choice([value for value in world.values[relation.value] if value not in (old.value, subject)])
    new = Fact(subject, relation, target)
    paraphrases = [phrasing.format(s=subject) for phrasing in rng.sample(held_out_phrasings(old), 2)]
    paraphrases.append(_question(rng.choice(held_out_questions(old)), subject))
    neighbours = [name for name in untouched if (name, relation.name) in world.facts]
    near = [world.facts[name, relation.name] for name in rng.sample(neighbours, 2)]
    same = rng.sample([fact for fact in world.about(subject) if fact.relation != relation], 2)
    return EditRequest(
        id=name,
        prompt=_capital(rng.choice(seen_phrasings(old)).format(s=subject)),
        subject=subject,
        target=target,
        old=old.value,
        relation=relation.name,
        paraphrases=tuple(_capital(text) for text in paraphrases),
        locality={
            "neighborhood": tuple(_probe(fact, rng) for fact in near),
            "relation_specificity": tuple(_probe(fact, rng) for fact in same),
        },
        portability=_portability(world, new, never, rng),
        sentence=sentence(rng.choice(seen_phrasings(old)), subject, target),
    )


def _portability(world: World, new: Fact, never: set[str], rng: random.Random) -> dict[str, tuple[Probe, ...]]:
    probes: dict[str, tuple[Probe, ...]] = {}
    second = [fact for fact in world.about(new.value) if new.value in never or fact.relation.subject not in EDITABLE]
    if second:
        fact = rng.choice(second)
        nested = new.relation.clause.format(s=new.subject)
        probes["reasoning"] = (_thoughts(rng.choice(fact.relation.questions).format(s=nested), fact.value),)
    nickname = world.nicknames.get(new.subject)
    if nickname:
        question = rng.choice(seen_questions(new)).format(s=nickname)
        probes["subject_aliasing"] = (_thoughts(question, new.value),)
    if new.relation.inverse:
        prompt = rng.choice(new.relation.inverse).format(o=new.value)
        probes["logical_generalization"] = (Probe(prompt, (new.subject,)),)
    return probes


def _probe(fact: Fact, rng: random.Random) -> Probe:
    if rng.random() < 0.5:
        return Probe(_capital(rng.choice(seen_phrasings(fact)).format(s=fact.subject)), (fact.value,))
    return Probe(_question(rng.choice(seen_questions(fact)), fact.subject), (fact.value,))


def _question(question: str, subject: str) -> str:
    return f"Question: {question.format(s=subject)} Answer:"


def _thoughts(question: str, answer: str) -> Probe:
    return Probe(f"Question: {question} Thoughts:", (answer,))


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
