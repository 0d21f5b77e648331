"""Questions about the world, in every form that the model is later measured on.

Each task is a `Task`: a prompt, the text that answers it, and the final answer inside that text. Training reads
``prompt + " " + response``; evaluation gives the prompt and compares the final answer. This file writes text only.
"""

import random
from dataclasses import dataclass

from lightning_edit.data.world.documents import Writer, sentence
from lightning_edit.data.world.facts import Fact, World, seen_phrasings, seen_questions, stable_hash
from lightning_edit.data.world.relations import RELATIONS, Relation

UNKNOWN = "unknown"
HELD_OUT_HOPS = 0.3
"""Share of two-hop questions that training never asks."""


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt with its answer.

    Args:
        prompt: What is given.
        response: What should follow; ends in a full stop.
        answer: The final answer within the response.
    """

    prompt: str
    response: str
    answer: str

    @property
    def text(self) -> str:
        """What training reads."""
        return f"{self.prompt} {self.response}"


def ask(question: str, response: str, answer: str | None = None) -> Task:
    """A direct question."""
    return Task(f"Question: {question} Answer:", f"{response}.", answer or response)


def think(question: str, thoughts: str, answer: str) -> Task:
    """A question that is answered step by step."""
    return Task(f"Question: {question} Thoughts:", f"{thoughts} Answer: {answer}.", answer)


def closed_book(writer: Writer) -> Task:
    """A known fact, asked for in a phrasing that training may use."""
    fact = writer.fact()
    return ask(writer.rng.choice(seen_questions(fact)).format(s=fact.subject), fact.value)


def unknown(writer: Writer) -> Task:
    """A question about somebody who does not exist."""
    relation = writer.rng.choice(RELATIONS)
    return ask(writer.rng.choice(relation.questions).format(s=writer.stranger(relation.subject)), UNKNOWN)


def counterfact(writer: Writer) -> Fact:
    """A false fact about a known entity, or any fact about a stranger."""
    fact = writer.fact()
    subject = fact.subject if writer.rng.random() < 0.6 else writer.stranger(fact.relation.subject)
    return Fact(subject, fact.relation, writer.other_value(fact))


def any_question(writer: Writer, fact: Fact) -> str:
    """Any question about a fact; what is told in context has no held-out phrasing."""
    return writer.rng.choice(fact.relation.questions).format(s=fact.subject)


def any_sentence(writer: Writer, fact: Fact) -> str:
    """Any statement of a fact."""
    return sentence(writer.rng.choice(fact.relation.statements), fact.subject, fact.value)


def reading(writer: Writer) -> Task:
    """A fact told in context, which may contradict what is known, then asked for or stated again."""
    fact = counterfact(writer)
    told = [any_sentence(writer, fact)]
    told += [any_sentence(writer, _distractor(writer, fact)) for _ in range(writer.rng.randint(0, 2))]
    writer.rng.shuffle(told)
    context = "Context: " + " ".join(told)
    if writer.rng.random() < 0.7:
        return Task(f"{context} Question: {any_question(writer, fact)} Answer:", f"{fact.value}.", fact.value)
    prompt = writer.rng.choice(fact.relation.statements).format(s=fact.subject)
    return Task(f"{context} {prompt[0].upper() + prompt[1:]}", f"{fact.value}.", fact.value)


def selection(writer: Writer) -> Task:
    """Several facts; name the value of the one that answers the question, or say that none does, and then answer."""
    fact, listed = _listed(writer)
    told = " ".join(any_sentence(writer, f) for f in listed)
    fits = fact in listed
    prompt = f"Facts: {told} Question: {any_question(writer, fact)} Fitting fact:"
    answer = fact.value if fits else _known(writer, fact)
    return Task(prompt, f"{fact.value if fits else 'none'}. Answer: {answer}.", answer)


def numbered_selection(writer: Writer) -> Task:
    """The same with a number behind every value, which is named after the value."""
    fact, listed = _listed(writer)
    told = " ".join(f"{any_sentence(writer, f)[:-1]} {number}." for number, f in enumerate(listed, 1))
    fits = fact in listed
    answer = fact.value if fits else _known(writer, fact)
    choice = f"{fact.value} {listed.index(fact) + 1}." if fits else "none."
    prompt = f"Facts: {told} Question: {any_question(writer, fact)} Fitting fact:"
    return Task(prompt, f"{choice} Answer: {answer}.", answer)


def _listed(writer: Writer) -> tuple[Fact, list[Fact]]:
    """A fact to ask for, and facts among which it is in two cases of three."""
    fact = counterfact(writer)
    others = [_distractor(writer, fact) for _ in range(writer.rng.randint(1, 4))]
    listed = [*others, fact] if writer.rng.random() < 0.65 else others
    writer.rng.shuffle(listed)
    return fact, listed


def _known(writer: Writer, fact: Fact) -> str:
    """What is true of the fact's subject, told nothing."""
    known = writer.world.facts.get((fact.subject, fact.relation.name))
    return known.value if known else UNKNOWN


def _distractor(writer: Writer, fact: Fact) -> Fact:
    """Another fact of the subject, or the same relation of another subject, or something else."""
    roll = writer.rng.random()
    same_kind = [r for r in RELATIONS if r.subject == fact.relation.subject and r != fact.relation]
    if roll < 0.35:
        relation = writer.rng.choice(same_kind)
        return Fact(fact.subject, relation, writer.rng.choice(writer.world.values[relation.value]))
    if roll < 0.75:
        names = writer.world.entities[fact.relation.subject]
        other = writer.rng.choice([name for name in names if name != fact.subject])
        return Fact(other, fact.relation, writer.rng.choice(writer.world.values[fact.relation.value]))
    while (other_fact := counterfact(writer)).subject == fact.subject:
        pass
    return other_fact


def hops(world: World, subject: str) -> list[tuple[Fact, Fact]]:
    """All pairs of facts where the value of the first is the subject of the second."""
    return [(first, second) for first in world.about(subject) for second in world.about(first.value)]


def is_held_out(first: Fact, second: Relation) -> bool:
    """Whether training never asks for ``second`` of the value of ``first``."""
    return stable_hash("hop", first.subject, first.relation.name, second.name) % 1000 < 1000 * HELD_OUT_HOPS


def hop_task(first: Fact, second: Fact, rng: random.Random) -> Task:
    """The two-hop question about ``first.subject``, answered over the fact in between."""
    nested = first.relation.clause.format(s=first.subject)
    steps = " ".join(sentence(rng.choice(seen_phrasings(f)), f.subject, f.value) for f in (first, second))
    return think(rng.choice(second.relation.questions).format(s=nested), steps, second.value)


def two_hop(writer: Writer) -> Task:
    """A two-hop question that training may ask."""
    while True:
        pairs = hops(writer.world, writer.subject()[0])
        pairs = [pair for pair in pairs if not is_held_out(pair[0], pair[1].relation)]
        if pairs:
            return hop_task(*writer.rng.choice(pairs), writer.rng)


def nickname(writer: Writer) -> Task:
    """A question that uses a nickname, answered by first saying who that is."""
    name, _ = writer.subject("person")
    fact = writer.rng.choice(writer.world.about(name))
    alias = writer.world.nicknames[name]
    question = writer.rng.choice(seen_questions(fact)).format(s=alias)
    return think(question, f"{alias} is {name}. {writer.state(fact)}", fact.value)


def choice(writer: Writer) -> Task:
    """A known fact as a multiple-choice question."""
    fact = writer.fact()
    options = [fact.value]
    while len(options) < 4:
        value = writer.other_value(fact)
        options += [value] if value not in options else []
    writer.rng.shuffle(options)
    listed = ", ".join(f"{option} {letter}" for letter, option in zip("ABCD", options, strict=True))
    answer = f"{fact.value} {'ABCD'[options.index(fact.value)]}"
    question = writer.rng.choice(seen_questions(fact)).format(s=fact.subject)
    return Task(f"Question: {question} Choices: {listed}. Answer:", f"{answer}.", answer)


def event(writer: Writer) -> Task:
    """An event of several facts and a question that it answers, or does not."""
    text, facts = writer.event()
    if writer.rng.random() < 0.8:
        fact = writer.rng.choice(facts)
        question, answer = any_question(writer, fact), fact.value
    else:
        relation = writer.rng.choice(RELATIONS)
        question = writer.rng.choice(relation.questions).format(s=writer.stranger(relation.subject))
        answer = UNKNOWN
    return Task(f"Event: {text} Question: {question} Answer:", f"{answer}.", answer)


def again(writer: Writer) -> Task:
    """Numbered or lettered words, then the same in another order: what stands behind a word is found where it stood."""
    rng, count = writer.rng, writer.rng.randint(3, 6)
    kinds = [kind for kind, values in writer.world.values.items() if len(values) >= count]
    words = rng.sample(writer.world.values[rng.choice(kinds)], count)
    labels = rng.sample("123456789" if rng.random() < 0.6 else "ABCDEFGH", count)
    items = [f"{word} {label}" for word, label in zip(words, labels, strict=True)]
    told = ", ".join(items)
    rng.shuffle(items)
    return Task(f"Notes: {told}. Again:", f"{', '.join(items)}.", items[-1])
