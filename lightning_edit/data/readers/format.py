"""What a request format is, and what several datasets have in common.

Knows the shapes in which published datasets write probes and previous answers. Refuses to know any one dataset.
"""

from collections.abc import Callable
from dataclasses import dataclass

from lightning_edit.fields import Record
from lightning_edit.probes import Probe, ProbeMap
from lightning_edit.requests import EditRequest


@dataclass(frozen=True, slots=True)
class RequestFormat:
    """One layout of records.

    Args:
        name: What messages call it.
        fields: The fields by which it is recognised.
        read: Turns one record into a request, or into the requests that belong together, or raises `BadRequest`.
    """

    name: str
    fields: frozenset[str]
    read: Callable[[Record], EditRequest | tuple[EditRequest, ...]]


def previous_answer(record: Record, field: str, target: str) -> str | None:
    """First answer in a field that differs from the target: what the model is thought to say before the edit.

    Some records want what is already true. There the answer is no alternative to the target, so none is kept and a
    note says so.

    Args:
        record: The record.
        field: A string, a list of strings or a list of alias lists; absent gives None.
        target: The request's target.
    """
    if not record.has(field):
        return None
    answers = record.answers(field)
    old = next((answer for answer in answers if answer.casefold() != target.strip().casefold()), None)
    if old is None:
        record.note(field, f"found only the target itself ({answers[0]!r}); kept no old answer")
    return old


def probes_by_kind(record: Record, field: str) -> ProbeMap:
    """Read probes in KnowEdit's layout, `{kind: [{prompt, ground_truth}]}`; kinds keep the names of the file.

    Args:
        record: The record that holds them.
        field: `locality` or `portability`; absent counts as none.
    """
    if not record.has(field):
        return ProbeMap()
    kinds = record.child(field)
    probes = {
        kind: [Probe(item.text("prompt"), item.answers("ground_truth")) for item in kinds.children(kind)]
        for kind in kinds.data
    }
    return ProbeMap(probes)


def single_probe(record: Record, kind: str, prompt: str, answers: str) -> ProbeMap:
    """Read the one locality probe that flat formats spread over two fields.

    Args:
        record: The record that holds it.
        kind: What to call it.
        prompt: Field of the probe's prompt; absent means no probe.
        answers: Field of its answers; absent means none are known.
    """
    if not record.has(prompt):
        return ProbeMap()
    known = record.answers(answers) if record.has(answers) else ()
    return ProbeMap({kind: [Probe(record.text(prompt), known)]})


def optional_tuple(text: str | None) -> tuple[str, ...]:
    """Zero or one texts as a tuple.

    Args:
        text: The text, if there is one.
    """
    return () if text is None else (text,)
