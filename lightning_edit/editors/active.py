"""Which requests are at work, and which of them share a column.

A column stands for all held requests whose prompts agree up to the subject's last token. The active set is a value:
adding and removing requests gives a new one, and comparing two of them says which columns have to go and to come.
This file does bookkeeping on ids; it knows neither model nor ledger.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from lightning_edit.errors import LedgerError, RequestError
from lightning_edit.requests import EditRequest, normalise

Signature = tuple[int, ...]  # token ids of a prompt up to the subject's last token
Pair = tuple[Tensor, Tensor]  # key (n,), value (d,) at one layer


@dataclass(frozen=True, slots=True)
class ActiveRequest:
    """A request at work.

    Args:
        request: The request.
        number: How many requests had been applied before it.
        signature: Its key's identity.
        held: Whether the ledger holds a column for it; false once absorbed into the base or left to itself.
        replaced: Ids of the contradicting requests it replaced.
    """

    request: EditRequest
    number: int
    signature: Signature
    held: bool = True
    replaced: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ActiveColumn:
    """A column of the ledgers.

    Args:
        requests: Ids of the requests it stands for, oldest first.
        z: Its block target (d,).
        center: The hidden state before the edit, from which the clamp is measured (d,).
        loss: Loss at which the target's optimisation ended.
        pairs: Key and value at every edited layer, kept only while the column is out of use.
    """

    requests: tuple[str, ...]
    z: Tensor
    center: Tensor
    loss: float
    pairs: Mapping[int, Pair] | None = None

    @property
    def id(self) -> str:
        """Name of the column: its first request, and how many more."""
        more = len(self.requests) - 1
        return self.requests[0] + (f" (+{more})" if more else "")


@dataclass(frozen=True, slots=True)
class ActiveSet:
    """All requests at work, those that were replaced, and how many were ever applied.

    Args:
        requests: Requests at work, by id, in the order they were applied.
        shelf: Replaced requests, kept in case the replacement is undone.
        applied: Number of requests ever applied.
    """

    requests: Mapping[str, ActiveRequest] = field(default_factory=dict)
    shelf: Mapping[str, ActiveRequest] = field(default_factory=dict)
    applied: int = 0

    def added(
        self, batch: Sequence[EditRequest], signatures: Sequence[Signature], hold_old: bool, resolve: bool = True
    ) -> "ActiveSet":
        """The set after a batch: contradicted requests go to the shelf.

        Args:
            batch: New requests, checked against each other.
            signatures: Their keys' identities.
            hold_old: Whether older requests keep their columns.
            resolve: Whether contradictions are looked for. Otherwise everything is added, each request with a column of
                its own: two that share a key would share a column and ask it for two answers.
        """
        requests = {key: entry if hold_old else replace(entry, held=False) for key, entry in self.requests.items()}
        shelf = dict(self.shelf)
        claims: dict[tuple[str, str], list[str]] = {}
        for key, entry in requests.items():
            claims.setdefault(entry.request.conflict_key, []).append(key)
        for number, (request, signature) in enumerate(zip(batch, signatures, strict=True), self.applied):
            if request.id in requests or request.id in shelf:
                raise RequestError(
                    f"request {request.id!r} has been applied already; expected an id that is not at work. "
                    "Give a changed request a new id (it replaces the one it contradicts), or undo the old one first."
                )
            replaced = tuple(claims.pop(request.conflict_key, ())) if resolve else ()
            for key in replaced:
                shelf[key] = requests.pop(key)
            own = signature if resolve else (*signature, -1 - number)  # no token id is negative
            requests[request.id] = ActiveRequest(request, number, own, True, replaced)
        return ActiveSet(requests, shelf, self.applied + len(batch))

    def steps(self, batch: Sequence[str]) -> list["ActiveSet"]:
        """The ways to this set that a batch takes: each step adds no two keys of one subject; the last is this set.

        Args:
            batch: Ids of the requests that came last.
        """
        turns: dict[str, int] = {}  # by request: how many other keys of its subject come before its own
        keys: dict[str, list[Signature]] = {}
        for name in batch:
            entry = self.requests[name]
            own = keys.setdefault(normalise(entry.request.subject or ""), [])
            if entry.signature not in own:
                own.append(entry.signature)
            turns[name] = own.index(entry.signature)
        last = max(turns.values(), default=0)
        return [
            replace(self, requests={key: one for key, one in self.requests.items() if turns.get(key, 0) <= turn})
            for turn in range(last + 1)
        ]

    def removed(self, ids: Iterable[str]) -> "ActiveSet":
        """The set without some requests; what they had replaced comes back.

        Args:
            ids: Requests to undo.
        """
        requests, shelf = dict(self.requests), dict(self.shelf)
        known = {**shelf, **requests}
        replaced_by = {old: key for key, entry in known.items() for old in entry.replaced}
        for key in sorted(set(ids), key=lambda key: -known[key].number if key in known else 0):
            _check_undoable(key, requests, replaced_by)
            for old in requests.pop(key).replaced:
                requests[old] = shelf.pop(old)
        return replace(self, requests=dict(sorted(requests.items(), key=lambda item: item[1].number)), shelf=shelf)

    def rolled_back(self, count: int) -> "ActiveSet":
        """The set without the requests that were applied last.

        Args:
            count: How many.
        """
        if not 0 <= count <= len(self.requests) + len(self.shelf):
            raise LedgerError(
                f"asked to roll back {count} requests; expected a number from 0 to "
                f"{len(self.requests) + len(self.shelf)}, which is how many were applied and not undone."
            )
        earlier = self
        for _ in range(count):
            earlier = earlier.removed([max(earlier.requests, key=lambda key: earlier.requests[key].number)])
        return earlier

    def groups(self) -> list[tuple[str, ...]]:
        """Ids of the held requests, grouped by key, in order of application."""
        groups: dict[Signature, list[str]] = {}
        for key, entry in self.requests.items():
            if entry.held:
                groups.setdefault(entry.signature, []).append(key)
        return [tuple(group) for group in groups.values()]

    def let_go(self) -> "ActiveSet":
        """The same requests, none of them held by the ledger any more."""
        return replace(self, requests={key: replace(entry, held=False) for key, entry in self.requests.items()})

    def knows(self, ids: Iterable[str]) -> bool:
        """Whether every id is at work or may come back.

        Args:
            ids: Ids of requests.
        """
        return all(key in self.requests or key in self.shelf for key in ids)


def _check_undoable(key: str, requests: Mapping[str, ActiveRequest], replaced_by: Mapping[str, str]) -> None:
    """Refuse to undo what is not at work, or not in the ledger."""
    if (entry := requests.get(key)) is None:
        state, newest = "is not at work", key
        while newest in replaced_by and newest not in requests:
            state = (
                f"was replaced by {replaced_by[newest]!r}"
                if newest == key
                else f"{state}, and that by {replaced_by[newest]!r}"
            )
            newest = replaced_by[newest]
        hint = f" Undo {newest!r} first: what it replaced is at work again then." if newest in requests else ""
        raise LedgerError(
            f"request {key!r} {state}; expected the id of an active request.{hint} See `editor.requests`."
        )
    if not entry.held:
        raise LedgerError(
            f"request {key!r} is no longer in the ledger: this editor's history keeps the latest batch only. "
            'Edit with history="kept" (for MEMIT: aligned=True) to be able to undo.'
        )
