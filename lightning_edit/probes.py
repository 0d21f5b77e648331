"""The questions that watch an edit from the side, by kind.

Knows that a probe is a prompt with the answers that are right. Refuses to know which metric asks it, and how a dataset
writes it down (`lightning_edit/data/readers/`).
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lightning_edit.fields import BadRequest, Record, Source, check_text, found


@dataclass(frozen=True, slots=True)
class Probe:
    """A question that watches an edit from the side.

    Args:
        prompt: Text the model continues.
        answers: Any of them is right. A locality probe may have none: it is judged by the unedited model's own answer.
    """

    prompt: str
    answers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompt", check_text(self.prompt, "prompt").strip())
        object.__setattr__(self, "answers", text_tuple(self.answers, "answers", None))


class ProbeMap(Mapping[str, tuple[Probe, ...]]):
    """Probes by kind; a mapping that can be hashed and pickled, because a request can.

    Args:
        kinds: Kind of probe to its probes. Kinds without probes are dropped.
    """

    __slots__ = ("_kinds",)

    def __init__(self, kinds: Mapping[str, Iterable[Probe]] | None = None) -> None:
        tuples = {kind: tuple(probes) for kind, probes in (kinds or {}).items()}
        self._kinds = {kind: probes for kind, probes in tuples.items() if probes}

    def __getitem__(self, kind: str) -> tuple[Probe, ...]:
        return self._kinds[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)

    def __hash__(self) -> int:
        return hash(frozenset(self._kinds.items()))

    def __repr__(self) -> str:
        return f"ProbeMap({self._kinds!r})"


def text_tuple(values: object, name: str, source: Source | None) -> tuple[str, ...]:
    """Check strings and return them stripped; a lone string is a mistake, not a sequence of characters.

    Args:
        values: A list or tuple of strings.
        name: Field they stand in, for messages.
        source: File and line, for messages.
    """
    if not isinstance(values, list | tuple):
        raise BadRequest(f"found {found(values)}, expected a list of strings; put it in brackets", name, source)
    return tuple(check_text(value, f"{name}[{i}]", source).strip() for i, value in enumerate(values))


def probe_map(kinds: object, name: str, source: Source | None) -> ProbeMap:
    """Check probes by kind; a portability probe without answers could never be judged.

    Args:
        kinds: Kind of probe to its probes.
        name: `locality` or `portability`.
        source: File and line, for messages.
    """
    if not isinstance(kinds, Mapping):
        raise BadRequest(f"found {found(kinds)}, expected kinds of probes: {{kind: [probe, ...]}}", name, source)
    for kind, probes in kinds.items():
        if not isinstance(probes, list | tuple):
            raise BadRequest(f"found {found(probes)}, expected a list of probes", f"{name}.{kind}", source)
        for index, probe in enumerate(probes):
            where = f"{name}.{kind}[{index}]"
            if not isinstance(probe, Probe):
                raise BadRequest(f"found {found(probe)}, expected a Probe; wrap it", where, source)
            if name == "portability" and not probe.answers:
                raise BadRequest("found no answer, expected at least one; add it", f"{where}.answers", source)
    return ProbeMap(kinds)


def read_probes(record: Record, name: str) -> ProbeMap:
    """Read probes by kind from the package's own layout, `{kind: [{prompt, answers}]}`.

    Args:
        record: The record that holds them.
        name: `locality` or `portability`; absent counts as none.
    """
    if not record.has(name):
        return ProbeMap()
    kinds = record.child(name)
    return ProbeMap({kind: [_read_probe(item) for item in kinds.children(kind)] for kind in kinds.data})


def _read_probe(item: Record) -> Probe:
    refuse_unknown(item, ("prompt", "answers"))
    answers = item.answers("answers") if item.data.get("answers") else ()
    return Probe(item.text("prompt"), answers)


def plain_probes(kinds: Mapping[str, tuple[Probe, ...]]) -> dict[str, list[dict[str, Any]]]:
    """Write probes in the layout that `read_probes` reads.

    Args:
        kinds: Kind of probe to its probes.
    """
    return {
        kind: [{"prompt": probe.prompt, "answers": list(probe.answers)} for probe in probes]
        for kind, probes in kinds.items()
    }


def refuse_unknown(record: Record, known: tuple[str, ...]) -> None:
    """Raise on the first field that nobody would read, and name the one that was probably meant.

    Args:
        record: The record to check.
        known: The fields that are read.
    """
    for name in record.data:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else "remove it"
            raise record.fault(str(name), f"found an unknown field, expected one of {', '.join(known)}; {hint}")
