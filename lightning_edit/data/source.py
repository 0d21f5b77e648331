"""Requests in the order in which they become edits, with a cursor that moves when an edit is committed.

Knows which requests have been committed, which were pulled and still wait, and how to find the place again after a
restart. Refuses to know when an edit is due (`ContinualEdit` does) and what it does to a model.

A file or a list can be read again, so its state is a position and a digest of what came before. Whatever else hands out
requests (a queue, a generator) hands each one out once: there the state holds the requests themselves, those that were
committed and those that were pulled and still wait.
"""

import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_edit.data.grow import GrowingFile
from lightning_edit.data.hub import local_file
from lightning_edit.data.live import iter_requests
from lightning_edit.data.load import OnBad
from lightning_edit.errors import RequestError, StateError
from lightning_edit.fields import BadRequest, Finding
from lightning_edit.requests import EditRequest, Tokenizer, check_lengths

VERSION = 1


@dataclass(frozen=True, slots=True)
class Limit:
    """The longest text that a model takes.

    Args:
        tokenizer: Counts tokens.
        tokens: How many fit.
    """

    tokenizer: Tokenizer
    tokens: int


class RequestSource:
    """A stream of requests with a cursor.

    Args:
        source: A path to a request file (JSON lines may be appended to it while training runs), or its address on the
            Hub, a list, which may grow as well, a queue or deque, which is emptied, or any other iterable of requests
            or dicts.
        on_bad: `raise` stops at a bad request, `skip` leaves it out and keeps its file, line, field and reason.
        limit: Requests with a longer text count as bad.

    Attributes:
        ends: Whether an empty source is at its end, as far as one can know; a queue never is.
    """

    def __init__(self, source: Any, on_bad: OnBad = "raise", limit: Limit | None = None) -> None:
        self._on_bad = on_bad
        self._limit = limit
        self._file = GrowingFile(local_file(source), on_bad) if isinstance(source, str | Path) else None
        items = self._file.requests if self._file else source
        self.replayable = isinstance(items, Sequence) and not isinstance(items, deque)
        self.ends = not (isinstance(items, deque) or hasattr(items, "get_nowait"))
        self._items = items
        self._requests = iter_requests(items, on_bad)
        self._waiting: deque[EditRequest] = deque()
        self._skipped: list[Finding] = []
        self._committed: list[EditRequest] = []
        self._digest = hashlib.sha256()
        self._before_restart: frozenset[str] = frozenset()

    @property
    def cursor(self) -> int:
        """Number of requests committed."""
        return len(self._committed)

    @property
    def committed(self) -> list[EditRequest]:
        """The requests before the cursor, in order."""
        return list(self._committed)

    @property
    def skipped(self) -> list[Finding]:
        """What was left out under `on_bad="skip"`."""
        return [*(self._file.skipped if self._file else ()), *self._requests.skipped, *self._skipped]

    def upcoming(self, count: int) -> list[EditRequest]:
        """The next requests that have not been committed, fewer where no more have arrived.

        Args:
            count: How many are wanted.
        """
        while len(self._waiting) < count:
            if (request := self._pull()) is None:
                break
            self._waiting.append(request)
        return [self._waiting[index] for index in range(min(count, len(self._waiting)))]

    def known(self) -> list[EditRequest]:
        """Every request that can be named before it is due: all that are left in a file or list, else those pulled."""
        if self.replayable:
            self.upcoming(len(self._waiting) + len(self._items))
        return list(self._waiting)

    def commit(self, count: int) -> None:
        """Move the cursor past the next requests.

        Args:
            count: How many of `upcoming` became edits.
        """
        if count > len(self._waiting):
            raise StateError(f"cannot commit {count} requests: {len(self._waiting)} were pulled; call upcoming() first")
        for _ in range(count):
            self._pass(self._waiting.popleft())

    def state_dict(self) -> dict[str, Any]:
        """Plain containers: where the stream stands."""
        state: dict[str, Any] = {"version": VERSION, "cursor": self.cursor, "replayable": self.replayable}
        if self.replayable:
            return {**state, "digest": self._digest.hexdigest()}
        committed, waiting = ([item.to_dict() for item in items] for items in (self._committed, self._waiting))
        return {**state, "committed": committed, "waiting": waiting}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Find the place again; a source that does not begin with what was committed is refused.

        Args:
            state: What `state_dict` gave.
        """
        if state.get("version") != VERSION:
            raise StateError(f"the stream's state has version {state.get('version')!r}; expected {VERSION}")
        if state["replayable"] != self.replayable:
            kinds = {True: "a file or list", False: "a live source"}
            raise StateError(
                f"the checkpoint read its requests from {kinds[state['replayable']]}, this run from "
                f"{kinds[self.replayable]}; expected the same kind. Give the requests as before."
            )
        self._rewind()
        if self.replayable:
            self._replay(state["cursor"], state["digest"])
            return
        pulled = self._waiting
        for item in state["committed"]:
            self._pass(EditRequest.from_dict(item))
        self._waiting = deque(EditRequest.from_dict(item) for item in state["waiting"])
        self._before_restart = frozenset(request.id for request in (*self._committed, *self._waiting))
        self._waiting.extend(request for request in pulled if request.id not in self._before_restart)

    def _rewind(self) -> None:
        """Put everything that was pulled back in front, where this object has been used before."""
        self._waiting.extendleft(reversed(self._committed))
        self._committed, self._digest = [], hashlib.sha256()

    def _replay(self, cursor: int, digest: str) -> None:
        """Pass over what was committed, and see that it is the same."""
        passed = self.upcoming(cursor)
        self.commit(len(passed))
        if len(passed) < cursor or self._digest.hexdigest() != digest:
            where = self._file.path if self._file else "the list of requests"
            raise StateError(
                f"{where} does not begin with the {cursor} requests "
                f"that were committed before the checkpoint (it has {len(passed) + len(self.known())}); expected the "
                "same requests in the same order, possibly with new ones behind. Restore them, or start a new run."
            )

    def _pass(self, request: EditRequest) -> None:
        """Count a request as committed."""
        self._committed.append(request)
        self._digest.update(repr((request.id, request.prompt, request.target)).encode("utf-8", "backslashreplace"))

    def _pull(self) -> EditRequest | None:
        """A request that has not come before, if there is one now."""
        while True:
            request = next(self._requests, None)
            if request is None:
                if self._file is None or not self._file.read_on():
                    return None
            elif request.id not in self._before_restart and self._fits(request):
                return request

    def _fits(self, request: EditRequest) -> bool:
        """Whether the model can take the request."""
        if self._limit is None:
            return True
        try:
            check_lengths([request], self._limit.tokenizer, self._limit.tokens)
        except BadRequest as fault:
            if self._on_bad == "raise":
                raise
            self._skipped.append(fault.finding())
            return False
        return True


def request_source(source: Any, on_bad: OnBad = "raise", limit: Limit | None = None) -> RequestSource:
    """A source with a cursor, whatever the user gave.

    Args:
        source: A `RequestSource`, or what one is made from.
        on_bad: `raise` or `skip`.
        limit: Requests with a longer text count as bad.
    """
    if isinstance(source, RequestSource):
        return source
    if source is None:
        raise RequestError("found no requests, expected a path, a list, a queue or another iterable of edit requests")
    return RequestSource(source, on_bad, limit)
