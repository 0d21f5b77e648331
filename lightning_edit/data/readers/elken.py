"""ELKEN (Peng et al., 2024): events, with questions about what each changes and what it leaves alone.

A question is of type 0 where the event states the answer, of type 1 where it takes one more step; `unknown` is the
answer to what the event opens and does not settle. Questions that are stated become edits and carry the event's text
as `sentence`; the others are held out as probes. Facts about the same entities that stay (`local_qas`) watch locality.

Not read: the tendency questions (multiple choice about the future, which depends on more than the event), the numbers
of Wikidata, and `rel_id`: `P159` is a headquarters' city in one question and its country in the next, which would make
two facts look like one.
"""

from lightning_edit.data.event import (
    ABSTENTION,
    INFERRED,
    STATED,
    UNKNOWN,
    Event,
    EventQuestion,
    Triple,
    event_edits,
    event_requests,
)
from lightning_edit.data.readers.format import RequestFormat
from lightning_edit.fields import Record, found
from lightning_edit.probes import Probe
from lightning_edit.requests import EditRequest


def read_event(record: Record) -> Event:
    """Turn one record into an event with its factual questions.

    Args:
        record: `{event, event_type, fact{qas[{question, subject{name}, answer{name, alias[]}, type}], local_qas[]},
            tendency}`.
    """
    fact = record.child("fact")
    unaffected = [Probe(item.text("question"), _answers(item)) for item in fact.children("local_qas")]
    return Event(
        id=f"elken-{record.index}",
        text=record.text("event"),
        questions=tuple(_question(item) for item in fact.children("qas")),
        unaffected=tuple(unaffected),
        source=record.source,
    )


def read(record: Record) -> tuple[EditRequest, ...]:
    """Turn one record into the edits of its event; none where it has no factual questions.

    Args:
        record: See `read_event`.
    """
    event = read_event(record)
    edits = event_edits(event)
    if not edits:
        record.note("fact.qas", "found no question about a fact; the event makes no edit")
    elif edits[0].kind != STATED:
        taught = f"the answer {edits[0].answers[0]!r} to {edits[0].prompt!r}"
        record.note("fact.qas", f"found no answer that the event states; the edit teaches {taught}")
    triples = [Triple(edit.prompt, edit.answers[0], edit.subject, edit.answers[1:]) for edit in edits]
    return event_requests(event, triples, [question for question in event.questions if question not in edits])


def _question(item: Record) -> EventQuestion:
    """A question of `qas` with its kind."""
    steps = item.require("type")
    if type(steps) is not int or steps not in (0, 1):
        raise item.fault("type", f"found {found(steps)}, expected 0 (stated) or 1 (inferred); correct the record")
    answers = _answers(item)
    subject = item.child("subject")
    return EventQuestion(
        prompt=item.text("question"),
        answers=answers,
        kind=UNKNOWN if answers[0].casefold() == ABSTENTION else (INFERRED if steps else STATED),
        subject=subject.text("name" if subject.has("name") else "ent2name"),
    )


def _answers(item: Record) -> tuple[str, ...]:
    """The name of an answer and its aliases, each once."""
    answer = item.child("answer")
    return tuple(dict.fromkeys(name.strip() for name in (answer.text("name"), *answer.texts("alias"))))


FORMAT = RequestFormat("ELKEN", frozenset(("event", "event_type", "fact", "tendency", "subject", "id")), read)
