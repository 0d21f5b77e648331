"""The events that editors play: from a request file or from the embedded world, each with its edits and its questions.

Knows that requests of one `group` are one event, and that a stream must not ask the same thing twice with two answers.
Which layout a file has (ELKEN, triples that a language model wrote, the package's own) the readers know.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from lightning_edit.data.world import World
from lightning_edit.errors import EditError
from lightning_edit.jobs.events_world import Taught, world_events
from lightning_edit.jobs.inputs import EMBEDDED, Choice, read_requests
from lightning_edit.requests import EditRequest, normalise


@dataclass(frozen=True, slots=True)
class EventEdits:
    """An event as editors take it.

    Args:
        id: Its name.
        requests: Its edits, the last of them with its probes; all carry the event's text as `sentence`.
    """

    id: str
    requests: tuple[EditRequest, ...]

    def questions(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Everything that is asked about what it changes, with the right answers."""
        for request in self.requests:
            for text in (request.prompt, *request.paraphrases):
                yield text, request.accepted
            for probes in request.portability.values():
                yield from ((probe.prompt, probe.answers) for probe in probes)


@dataclass(slots=True)
class Drawn:
    """Events in the order in which they happen.

    Args:
        events: The events.
        notes: Remarks for a person: records that were skipped, events that contradict earlier ones.
    """

    events: list[EventEdits]
    notes: list[str] = field(default_factory=list)


def draw_events(source: str, count: int, seed: int = 0, choice: Choice = "first", taught: Taught = "pairs") -> Drawn:
    """Events that can all be true at once.

    An event is left out where it asks word for word what an earlier one asks, and takes another answer for right: both
    could not be counted. ELKEN has such events.

    Args:
        source: A request file, or `embedded` for events of the embedded world.
        count: Number of events.
        seed: Seed of the embedded world's events, or of a file's order.
        choice: `first` takes a file's events in their order, `random` draws their order from the seed.
        taught: What an edit of the embedded world's events is, `pairs` of question and answer or `statements`; a file
            says so by itself.
    """
    if source == EMBEDDED:
        return Drawn(group_events(world_events(World(), count, seed, taught)))
    requests, notes = read_requests(source, None, on_bad="skip")
    everything = group_events(requests)
    if choice == "random":
        random.Random(seed).shuffle(everything)
    events, contradicting = _consistent(everything, count)
    if contradicting:
        notes.append(f"left out, as they contradict earlier events: {', '.join(contradicting)}")
    if len(events) < count:
        raise EditError(
            f"{source} holds {len(everything)} events, {len(contradicting)} of them in contradiction to earlier ones; "
            f"expected at least {count}. Choose smaller loads or fewer groups."
        )
    return Drawn(events, notes)


def group_events(requests: Iterable[EditRequest]) -> list[EventEdits]:
    """Requests of one `group` as one event, in the order of their first ones; one without is an event by itself.

    Args:
        requests: The requests.
    """
    groups: dict[tuple[str, str], list[EditRequest]] = {}
    for request in requests:
        key = ("group", request.group) if request.group else ("id", request.id)
        groups.setdefault(key, []).append(request)
    return [EventEdits(name, tuple(own)) for (_, name), own in groups.items()]


def _consistent(events: Sequence[EventEdits], count: int) -> tuple[list[EventEdits], list[str]]:
    """The first events that agree with all before them, and the names of those that were passed over."""
    known: dict[str, set[str]] = {}
    kept, left_out = list[EventEdits](), list[str]()
    for event in events:
        if len(kept) == count:
            break
        asked = [(normalise(prompt), {normalise(name) for name in answers}) for prompt, answers in event.questions()]
        if any(prompt in known and not known[prompt] & answers for prompt, answers in asked):
            left_out.append(event.id)
            continue
        kept.append(event)
        for prompt, answers in asked:
            known.setdefault(prompt, set()).update(answers)
    return kept, left_out
