"""An event as a dataset tells it: a text, the questions it answers anew, and those it leaves alone.

One event becomes several edits, because an `EditRequest` teaches one answer. They share the event's text as `sentence`
and its name as `group`, so that an editor that takes texts stores the event once, and a score per event can be taken.
Probes stand at the event's last edit: by then all of its edits are in the model.

Refuses to know files and datasets (`readers/elken.py`) and language models (`events.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from lightning_edit.fields import Source
from lightning_edit.probes import Probe, ProbeMap
from lightning_edit.requests import EditRequest

STATED: Final = "stated"
"""Kind of the questions whose answer the event says."""
INFERRED: Final = "inferred"
"""Kind of those whose answer follows from the event and what is known otherwise."""
UNKNOWN: Final = "unknown"
"""Kind of those that the event opens and does not settle."""
UNAFFECTED = "unaffected"
"""Kind of the locality probes: facts about the event's entities that it leaves as they are."""
ABSTENTION = "unknown"
"""The right answer to a question that an event opens and does not settle."""

Kind = Literal["stated", "inferred", "unknown"]


@dataclass(frozen=True, slots=True)
class EventQuestion:
    """A question whose answer an event changes.

    Args:
        prompt: The question.
        answers: Right answers, the name first.
        kind: `stated`, `inferred` or `unknown`.
        subject: What it is about, as the question spells it.
    """

    prompt: str
    answers: tuple[str, ...]
    kind: Kind
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, with the questions that show whether a model took it in.

    Args:
        id: Name of the event, unique in its file.
        text: The event in words.
        questions: What it changes.
        unaffected: What it leaves alone.
        source: Where it was read.
    """

    id: str
    text: str
    questions: tuple[EventQuestion, ...] = ()
    unaffected: tuple[Probe, ...] = ()
    source: Source | None = None


@dataclass(frozen=True, slots=True)
class Triple:
    """One thing that an event says: behind `prompt` comes `target`.

    Args:
        prompt: Text before the target, the subject in it.
        target: What the model shall say.
        subject: What it is about, as it stands in the prompt.
        aliases: Other names of the target.
    """

    prompt: str
    target: str
    subject: str | None
    aliases: tuple[str, ...] = ()


def event_edits(event: Event) -> tuple[EventQuestion, ...]:
    """The questions of an event that make its edits.

    All whose answer the event states. Where there is none, the first whose answer follows, else the first that the
    event leaves open: there the model is taught to answer `unknown`, and no event is lost.

    Args:
        event: The event.
    """
    stated = tuple(question for question in event.questions if question.kind == STATED)
    for kind in (INFERRED, UNKNOWN):
        stated = stated or tuple(question for question in event.questions if question.kind == kind)[:1]
    return stated


def event_requests(
    event: Event, triples: Sequence[Triple], asked: Sequence[EventQuestion], ids: str = ""
) -> tuple[EditRequest, ...]:
    """One request for each triple, the last one with the event's probes.

    Args:
        event: The event.
        triples: What is to be taught.
        asked: The questions held out: they become portability probes by kind.
        ids: What stands between the event's name and the triple's number in a request's id.
    """
    portability = ProbeMap(
        {
            kind: [Probe(question.prompt, question.answers) for question in asked if question.kind == kind]
            for kind in (STATED, INFERRED, UNKNOWN)
        }
    )
    last = len(triples) - 1
    return tuple(
        EditRequest(
            id=f"{event.id}-{ids}{index}",
            prompt=triple.prompt,
            target=triple.target,
            subject=triple.subject,
            locality=ProbeMap({UNAFFECTED: event.unaffected}) if index == last else ProbeMap(),
            portability=portability if index == last else ProbeMap(),
            sentence=event.text,
            target_aliases=triple.aliases,
            group=event.id,
            source=event.source,
        )
        for index, triple in enumerate(triples)
    )
