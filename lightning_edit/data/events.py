"""Events rewritten as triples by a language model, for editors that teach one answer at a time.

*Revisiting* (Appendix C.2) edits events so: a language model draws (subject, prompt, target) triples from the text, and
they are taught one after another. The published triples are not available; the instruction here is this package's own,
and so is what it takes for a triple. An event whose reply cannot be used is listed, and costs no other event.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from lightning_edit.data.event import Event, Triple, event_requests
from lightning_edit.data.hub import local_file
from lightning_edit.data.load import recognise
from lightning_edit.data.readers import elken
from lightning_edit.data.records import read_text, split_records
from lightning_edit.errors import RequestError
from lightning_edit.fields import BadRequest, Record, Source, check_encoding, found
from lightning_edit.llm.asking import Malformed, ask_strictly
from lightning_edit.llm.assistant import Assistant, without_thoughts
from lightning_edit.llm.cache import ReplyCache
from lightning_edit.requests import EditRequest, find_subject, normalise

MOST_TRIPLES = 12
NOTHING = "NONE"
REMINDER = (
    "Your reply must consist of blocks of three lines, 'Subject: ...', 'Prompt: ...' and 'Target: ...', with the "
    f"subject word for word in the prompt, or of the word {NOTHING}. Nothing else."
)
_LABELS = ("Subject", "Prompt", "Target")
_FENCE = re.compile(r"^```\w*\n(.*)\n```$", re.DOTALL)
_PROMPT = """\
Below is a short report of an event. Write down every fact that holds after it, one fact to a block of three lines:

Subject: the person, organisation or thing that the fact is about
Prompt: the beginning of a sentence that states the fact, up to the point where only the new information is missing
Target: the missing end of that sentence, as short as it can be

Rules:
- The prompt contains the subject, spelled exactly as in the line above it, and can be understood without the report: \
no "he", "it" or "the company".
- The prompt does not give the target away, and only one target fits.
- Each block states one fact. A place, a date, an office and a second person are facts of their own.
- Use what the report says, and nothing else that you know.
- If the report states no such fact, reply with the single word NONE.
- Write the blocks with an empty line between them, and nothing before, after or around them.

Report: Ilka Voss left Harrow Rovers in May to become head coach of FC Ostvik.
Subject: Ilka Voss
Prompt: The club that Ilka Voss works for is
Target: FC Ostvik

Subject: FC Ostvik
Prompt: The head coach of FC Ostvik is
Target: Ilka Voss

Subject: Ilka Voss
Prompt: Ilka Voss left Harrow Rovers in the month of
Target: May

Report: The mayor of Quellin, Oda Brandt, has died in Lant.
Subject: Oda Brandt
Prompt: Oda Brandt died in the city of
Target: Lant

Report: {event}\
"""


class EventFault(NamedTuple):
    """An event that made no edit.

    Args:
        event: Its id.
        text: The event in words.
        reason: What was wrong with the reply, or why there was none.
    """

    event: str
    text: str
    reason: str

    def __str__(self) -> str:
        return f"{self.event}: {self.reason}"


@dataclass
class Conversion:
    """Events as edits.

    Args:
        requests: The edits in the order of the events, those of an event one after another.
        faults: The events that made none.
        notes: Edits to look at: their target does not stand in the event's text.
        model: Name of the model that wrote the triples.
    """

    requests: list[EditRequest] = field(default_factory=list)
    faults: list[EventFault] = field(default_factory=list)
    notes: list[EventFault] = field(default_factory=list)
    model: str = ""

    def report(self) -> str:
        """One line per event without an edit and per note, under a line that counts them."""
        events = len({request.group for request in self.requests})
        head = f"{len(self.requests)} edits from {events} events by {self.model}, {len(self.faults)} events without"
        return "\n".join([head, *map(str, self.faults), *map(str, self.notes)])

    def save(self, path: str | Path) -> None:
        """Write the edits as a request file, one JSON object a line, which `load_requests` reads.

        Args:
            path: The file.
        """
        lines = (json.dumps(request.to_dict(), ensure_ascii=False) + "\n" for request in self.requests)
        Path(path).write_text("".join(lines), encoding="utf-8")


def read_events(path: str | Path) -> list[Event]:
    """The events of an ELKEN file that have factual questions, which is what *Revisiting* keeps of it.

    Args:
        path: The file, or its address on the Hub.
    """
    file = local_file(path)
    records = list(split_records(read_text(file)))
    layout = recognise(file, records)
    if layout is not elken.FORMAT:
        raise RequestError(f"{file}: found {layout.name if layout else 'no objects'}, expected {elken.FORMAT.name}")
    events = []
    for index, raw in enumerate(records):
        source = Source(str(file), raw.line, raw.number)
        if raw.fault is not None or not isinstance(raw.value, dict):
            raise BadRequest(raw.fault or f"found {found(raw.value)}, expected an object", None, source)
        check_encoding(raw.value, source)
        events.append(elken.read_event(Record(raw.value, source, index)))
    return [event for event in events if event.questions]


def convert_events(
    events: Iterable[Event | str],
    assistant: Assistant,
    cache: ReplyCache | str | Path | None = None,
    attempts: int = 2,
) -> Conversion:
    """Let a language model draw triples from events, and make edits of them.

    All questions of an event become portability probes of its last edit, and what it leaves alone locality probes, as
    in *Revisiting*, Appendix C.1 and C.2.

    Args:
        events: Events, or bare texts, which get ids by their position.
        assistant: The language model: `llm.Endpoint`, `llm.local.LocalModel`.
        cache: File, or `ReplyCache`, in which replies are kept; None keeps none.
        attempts: How often an event is asked about before its reply counts as malformed.
    """
    told = [_event(item, index) for index, item in enumerate(events)]
    kept = cache if cache is None or isinstance(cache, ReplyCache) else ReplyCache(cache)
    prompts = [_PROMPT.format(event=" ".join(event.text.split())) for event in told]
    replies = ask_strictly(assistant, prompts, parse_triples, "triples", REMINDER, kept, attempts)
    conversion = Conversion(model=assistant.name)
    for event, reply in zip(told, replies, strict=True):
        if not reply.value:
            reason = reply.fault or f"{assistant.name} finds no fact in it"
            conversion.faults.append(EventFault(event.id, event.text, reason))
            continue
        conversion.requests += event_requests(event, reply.value, event.questions, "t")
        for triple in reply.value:
            if normalise(triple.target) not in normalise(event.text):
                reason = f"the target {triple.target!r} of {triple.prompt!r} does not stand in the event's text"
                conversion.notes.append(EventFault(event.id, event.text, reason))
    return conversion


def parse_triples(text: str) -> tuple[Triple, ...]:
    """Read triples: blocks of three labelled lines and nothing else, behind any thoughts.

    Args:
        text: The language model's reply.

    Returns:
        The triples; none where the reply is `NONE`.
    """
    said = without_thoughts(text)
    fence = _FENCE.match(said)
    lines = [line.strip() for line in (fence[1] if fence else said).splitlines() if line.strip()]
    if lines == [NOTHING]:
        return ()
    if not lines or len(lines) % 3:
        raise Malformed(f"expected blocks of three lines, found {len(lines)} lines")
    triples = [_triple(lines[start : start + 3]) for start in range(0, len(lines), 3)]
    if len(triples) > MOST_TRIPLES:
        raise Malformed(f"expected at most {MOST_TRIPLES} triples, found {len(triples)}")
    prompts = [normalise(triple.prompt) for triple in triples]
    if twice := [prompt for prompt in prompts if prompts.count(prompt) > 1]:
        raise Malformed(f"expected each prompt once, found {twice[0]!r} {prompts.count(twice[0])} times")
    return tuple(triples)


def _triple(lines: Sequence[str]) -> Triple:
    """One block, if an edit can be made of it."""
    values = []
    for label, line in zip(_LABELS, lines, strict=True):
        name, mark, value = line.partition(":")
        if name.strip() != label or not mark or not value.strip():
            raise Malformed(f"expected '{label}: ...', found {line[:60]!r}")
        values.append(value.strip())
    subject, prompt, target = values
    if find_subject(prompt, subject) is None:
        raise Malformed(f"expected the subject {subject!r} in the prompt {prompt!r}")
    if normalise(prompt).endswith(normalise(target)):
        raise Malformed(f"expected a prompt without its target, found {prompt!r} with {target!r}")
    return Triple(prompt, target, subject)


def _event(item: Event | str, index: int) -> Event:
    """An event, made from a bare text where need be."""
    event = item if isinstance(item, Event) else Event(f"event-{index}", str(item).strip())
    if not event.text.strip():
        raise RequestError(f"event {event.id}: found no text, expected what happened; leave the event out")
    return event
