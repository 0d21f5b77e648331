"""Events of the embedded world: two new facts in one text, and the questions that show whether they arrived.

The texts have the form that the embedded model was taught to read. Every second event is about somebody it knows, the
others about newcomers it has never heard of: of the first all else stays as it was, of the others all else is
`unknown`. Knows the world and its words; what is done with the events is for others to say.
"""

import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Literal

from lightning_edit.data.event import ABSTENTION, INFERRED, STATED, UNAFFECTED, UNKNOWN
from lightning_edit.data.world import World
from lightning_edit.data.world.edits import EDITABLE, subjects
from lightning_edit.data.world.facts import Fact, held_out_questions, seen_phrasings, seen_questions
from lightning_edit.data.world.names import NameMaker
from lightning_edit.data.world.relations import RELATIONS, Relation
from lightning_edit.errors import EditError
from lightning_edit.probes import Probe, ProbeMap
from lightning_edit.requests import EditRequest

OPENINGS = ("In spring", "Last week", "In the autumn", "After long talks", "This year")
FACTS = 2
"""Facts that an event makes true, as in the texts that the embedded model has read."""
KNOWN_SUBJECTS = 150
"""Entities that events may be about; whatever follows from a fact about any other stays true."""
Taught = Literal["pairs", "statements"]
"""What an edit of an event is: a question and its answer, or a sentence as a language model's triples give it."""


def world_events(world: World, count: int, seed: int = 0, taught: Taught = "pairs") -> list[EditRequest]:
    """The edits of some events, those of an event one after another, with their probes at its last edit.

    An edit asks one question about a fact, and its paraphrase is one that training never asked about it; or the edit
    is a statement, and both questions are held out as `stated`, as those of an event are whose triples are taught.
    Held out besides are two-hop questions over a new fact (`inferred`) and what a newcomer's event leaves open
    (`unknown`). Locality probes are other facts of a known subject (`unaffected`), and facts of entities that nothing
    is about.

    Args:
        world: What is true before the events.
        count: Number of events.
        seed: Seed of subjects, facts and questions; fewer events are the first of more.
        taught: `pairs` of question and answer, or `statements`. What is asked besides is the same.
    """
    if not 1 <= count <= 2 * KNOWN_SUBJECTS:
        raise EditError(f"found {count} events, expected 1 to {2 * KNOWN_SUBJECTS} of the embedded world")
    edited, untouched = subjects(world, seed)
    known = edited[:KNOWN_SUBJECTS]
    rng = random.Random(f"events-{world.seed}-{seed}")
    maker, made = NameMaker(rng, set(world.words)), list[EditRequest]()
    for index in range(count):
        kind = rng.choice(EDITABLE)
        newcomer = index % 2 == 1
        subject = maker.many(kind, 1)[0] if newcomer else known[index // 2]
        teller = _Teller(world, rng, set(known), untouched, taught)
        made += teller.requests(f"world-event-{seed}-{index:03d}", subject, kind)
    return made


def event_text(opening: str, subject: str, facts: Iterable[Fact]) -> str:
    """An event in words, in the form of the texts that the embedded model has read.

    Args:
        opening: When it happened, one of `OPENINGS`.
        subject: Whom it is about.
        facts: What it makes true.
    """
    told = " and ".join(f"{_noun(fact.relation)} is now {fact.value}" for fact in facts)
    return f"{opening} there was news about {subject}: {told}."


class _Teller:
    """Makes the edits of one event.

    Args:
        world: What is true before.
        rng: Source of every choice.
        changing: Entities that some event may be about.
        untouched: Entities that none is about.
        taught: What an edit is.
    """

    def __init__(
        self, world: World, rng: random.Random, changing: Collection[str], untouched: Sequence[str], taught: Taught
    ) -> None:
        self.world, self.rng, self.changing, self.untouched = world, rng, changing, untouched
        self.taught = taught

    def requests(self, name: str, subject: str, kind: str) -> list[EditRequest]:
        """The edits, the last with the event's probes; `kind` is a newcomer's, a known subject has its own."""
        before = self.world.about(subject)
        relations = [r for r in RELATIONS if r.subject == (before[0].relation.subject if before else kind)]
        facts = [self._new_fact(subject, relation) for relation in self.rng.sample(relations, FACTS)]
        text = event_text(self.rng.choice(OPENINGS), subject, facts)
        others = [relation for relation in relations if relation not in [fact.relation for fact in facts]]
        made = [self._request(f"{name}-{index}", name, text, fact) for index, fact in enumerate(facts)]
        portability = {INFERRED: self._two_hops(facts), UNKNOWN: [] if before else self._open(subject, others)}
        if self.taught == "statements":
            asked = [(text, one.target) for one in made for text in (one.prompt, *one.paraphrases)]
            portability[STATED] = [Probe(text, (target,)) for text, target in asked]
            made = [self._as_statement(one, fact) for one, fact in zip(made, facts, strict=True)]
        locality = {
            UNAFFECTED: [self._probe(fact) for fact in before if fact.relation in others],
            "neighborhood": [self._probe(self._neighbour(fact.relation)) for fact in facts],
        }
        last = replace(made[-1], locality=ProbeMap(locality), portability=ProbeMap(portability))
        return [*made[:-1], last]

    def _new_fact(self, subject: str, relation: Relation) -> Fact:
        old = self.world.facts.get((subject, relation.name))
        taken = (subject, old.value if old else None)
        return Fact(
            subject, relation, self.rng.choice([v for v in self.world.values[relation.value] if v not in taken])
        )

    def _request(self, name: str, group: str, text: str, fact: Fact) -> EditRequest:
        old = self.world.facts.get((fact.subject, fact.relation.name))
        return EditRequest(
            id=name,
            prompt=_asked(self.rng.choice(seen_questions(fact)), fact.subject),
            target=fact.value,
            subject=fact.subject,
            old=old.value if old else None,
            relation=fact.relation.name,
            paraphrases=(_asked(self.rng.choice(held_out_questions(fact)), fact.subject),),
            sentence=text,
            group=group,
        )

    def _as_statement(self, request: EditRequest, fact: Fact) -> EditRequest:
        """The same edit behind a statement; which one hangs on the fact alone, so that all other choices stay."""
        prompt = seen_phrasings(fact)[0].format(s=fact.subject)
        return replace(request, prompt=prompt[0].upper() + prompt[1:], paraphrases=(), subject_span=None)

    def _two_hops(self, facts: Iterable[Fact]) -> list[Probe]:
        """One question over each new fact whose value has facts that no event changes."""
        probes = []
        for fact in facts:
            if fact.value not in self.changing and (second := self.world.about(fact.value)):
                further = self.rng.choice(second)
                nested = fact.relation.clause.format(s=fact.subject)
                question = self.rng.choice(further.relation.questions).format(s=nested)
                probes.append(Probe(f"Question: {question} Thoughts:", (further.value,)))
        return probes

    def _open(self, subject: str, relations: Iterable[Relation]) -> list[Probe]:
        """What an event leaves open about a newcomer."""
        questions = [_asked(self.rng.choice(relation.questions), subject) for relation in relations]
        return [Probe(question, (ABSTENTION,)) for question in questions]

    def _neighbour(self, relation: Relation) -> Fact:
        names = [name for name in self.untouched if (name, relation.name) in self.world.facts]
        return self.world.facts[self.rng.choice(names), relation.name]

    def _probe(self, fact: Fact) -> Probe:
        return Probe(_asked(self.rng.choice(seen_questions(fact)), fact.subject), (fact.value,))


def _asked(question: str, subject: str) -> str:
    return f"Question: {question.format(s=subject)} Answer:"


def _noun(relation: Relation) -> str:
    """What a relation is called once its subject has been named: `the employer`."""
    return relation.clause.format(s="the subject").replace(" of the subject", "")
