"""Requests from a source that may grow while training runs: a list, a queue, a generator, or simply a file.

Knows how to ask each kind of source for its next item. Refuses to know when an edit is due
(`lightning_edit/data/stream.py`).
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from queue import Empty
from typing import Any

from lightning_edit.data.load import OnBad, check_choice, load_requests
from lightning_edit.errors import RequestError
from lightning_edit.fields import BadRequest, Finding, Source, found
from lightning_edit.requests import EditRequest, duplicate_id


class RequestIterator(Iterator[EditRequest]):
    """Requests from a source that may grow while it is read.

    `StopIteration` means "nothing more for now": ask again and requests that have arrived since come out. Bad requests
    are met one by one, so an error costs only the request it names, and the iterator stays usable.

    Args:
        source: See `iter_requests`.
        on_bad: `raise` or `skip`.

    Attributes:
        skipped: The requests left out under `on_bad="skip"`.
    """

    def __init__(self, source: object, on_bad: OnBad = "raise") -> None:
        check_choice(on_bad)
        self._on_bad = on_bad
        self._count = 0
        self._seen: set[str] = set()
        self.skipped: list[Finding] = []
        if isinstance(source, str | Path):
            source = load_requests(source, on_bad)
            self.skipped.extend(source.skipped)
        self._pull = _puller(source)

    def __next__(self) -> EditRequest:
        while True:
            item = self._pull()
            self._count += 1
            try:
                return self._accept(item)
            except BadRequest as fault:
                if self._on_bad == "raise":
                    raise
                self.skipped.append(fault.finding())

    def _accept(self, item: object) -> EditRequest:
        source = Source("stream", self._count)
        if isinstance(item, Mapping):
            item = EditRequest.from_dict(item, source)
        if not isinstance(item, EditRequest):
            raise BadRequest(f"found {found(item)}, expected an EditRequest or a dict; convert it", None, source)
        if item.id in self._seen:
            raise duplicate_id(item, None)
        self._seen.add(item.id)
        return item


def iter_requests(source: Any, on_bad: OnBad = "raise") -> RequestIterator:
    """Iterate over requests from a file or a live source, each checked as it comes.

    Args:
        source: A path (read at once); a list or other sequence, which may be appended to meanwhile; a deque or a queue,
            which is emptied; or any other iterable, asked for one item at a time. Items are `EditRequest`s or dicts in
            the layout of the package's request files. In messages the line of a dict is its number in the stream.
        on_bad: `raise` or `skip`; what was skipped is in the iterator's `skipped`.
    """
    return RequestIterator(source, on_bad)


def _puller(source: Any) -> Callable[[], object]:
    """A function that gives the next item, or raises StopIteration where there is none for now."""
    if hasattr(source, "get_nowait"):
        return lambda: _stop_on(Empty, source.get_nowait)
    if isinstance(source, deque):
        return lambda: _stop_on(IndexError, source.popleft)
    if isinstance(source, Sequence):
        return _follow(source)
    if isinstance(source, Iterable):
        return iter(source).__next__
    raise RequestError(f"found {found(source)}, expected a path, a sequence, a queue or another iterable of requests")


def _follow(source: Sequence[object]) -> Callable[[], object]:
    """Items by position, so that what is appended after an end still comes."""
    position = 0

    def following() -> object:
        nonlocal position
        if position >= len(source):
            raise StopIteration
        position += 1
        return source[position - 1]

    return following


def _stop_on(end: type[Exception], take: Callable[[], object]) -> object:
    """An item, or the end for now where the source has its own way to say that it is empty."""
    try:
        return take()
    except end:
        raise StopIteration from None
