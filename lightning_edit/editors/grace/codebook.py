r"""GRACE's codebook: which entry a request is put into, and which one a query finds.

An entry has a key \(k\) in the space of the projection's inputs, a radius \(\epsilon\) and a value. A query \(q\) finds
the nearest entry, if \(\lVert q - k \rVert \le \epsilon\). A new request, with query q, either

- **adds** an entry with the initial radius, where no key is near: \(d = \lVert q - k \rVert > \epsilon + \epsilon_0\);
- **expands** the nearest entry, where it has the same target: \(\epsilon \leftarrow \max(\epsilon, d)\), and a
  thousandth more, since the same prompt's query is another in its last digits where it is read in another batch;
- **splits** the space between, where it has another one: a new entry, and both radii are at most \(d / 2\).

A split asks for the key only. A request that had expanded the entry further than \(d / 2\) is out of its reach from
then on, though it is still a member; `out_of_reach` names such requests.

The codebook is what this rule gives for a list of requests, one after another, and nothing else: taking a request back
is applying the rule to the others. Source: Hartvigsen et al. 2023 (arXiv 2211.11031), Algorithm 1. This file knows
vectors; it knows no model.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

SLACK = 1e-3
"""How much further than its newest member an expanded entry reaches."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One request, as the codebook knows it.

    Args:
        query: Input of the projection at the prompt's last token (n,).
        target: Tokens of the target; two requests agree if these are equal.
        value: The output that makes the model say the target (d,).
    """

    query: Tensor
    target: tuple[int, ...]
    value: Tensor


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the codebook.

    Args:
        members: Ids of the requests that it serves, oldest first: the first one's query is the key, the last one's
            value is the value.
        radius: How far from the key a query may be.
    """

    members: tuple[str, ...]
    radius: float

    @property
    def founder(self) -> str:
        """The request whose query is the key."""
        return self.members[0]

    @property
    def newest(self) -> str:
        """The request whose value is the value."""
        return self.members[-1]


def fold(
    entries: Sequence[Entry], ids: Iterable[str], lessons: Mapping[str, Lesson], radius: float
) -> tuple[Entry, ...]:
    """The codebook after some more requests.

    Args:
        entries: The codebook before.
        ids: The requests, in their order.
        lessons: What is known of them, and of those in the codebook.
        radius: Radius of a new entry.
    """
    book = list(entries)
    keys = [lessons[entry.founder].query for entry in book]
    for name in ids:
        lesson = lessons[name]
        if not book:
            book.append(Entry((name,), radius))
            keys.append(lesson.query)
            continue
        distances = (torch.stack(keys) - lesson.query).norm(dim=-1)  # (m,)
        near = int(distances.argmin())
        distance, entry = float(distances[near]), book[near]
        if distance > entry.radius + radius:
            book.append(Entry((name,), radius))
        elif lessons[entry.founder].target == lesson.target:
            book[near] = Entry((*entry.members, name), max(entry.radius, distance * (1 + SLACK)))
            continue
        else:
            book[near] = replace(entry, radius=min(entry.radius, distance / 2))
            book.append(Entry((name,), min(radius, distance / 2)))
        keys.append(lesson.query)
    return tuple(book)


def out_of_reach(entries: Sequence[Entry], lessons: Mapping[str, Lesson]) -> list[str]:
    """Ids of the requests whose query lies outside of their entry's radius, which a later split has made smaller.

    Args:
        entries: The codebook.
        lessons: What is known of its requests.
    """
    found = []
    for entry in entries:
        key = lessons[entry.founder].query
        found += [name for name in entry.members[1:] if float((lessons[name].query - key).norm()) > entry.radius]
    return found
