"""What a memory holds when it keeps in step with another editor, which alone decides what is at work.

An active set by itself brings back what an undone request had replaced. An editor that teaches commits as a whole also
takes back the replaced requests of a commit, and one that appends replaces nothing. So the other editor's report is
followed here, and the active set's own rule is not. This file does bookkeeping on ids.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lightning_edit.editors.active import ActiveRequest, ActiveSet
from lightning_edit.editors.report import EditReport
from lightning_edit.requests import EditRequest


def followed(active: ActiveSet, batch: Sequence[EditRequest], report: EditReport) -> ActiveSet:
    """The requests that are at work after a change of another editor that had the same ones.

    Args:
        active: The requests before.
        batch: The requests that it has learned; none where it took some back.
        report: What it says of the change.
    """
    if batch:
        new = {request.id for request in batch}  # an id that it takes again is one that it has forgotten
        known = {key: entry for key, entry in active.shelf.items() if key not in new}
        before = replace(active, requests=_tidy(active.requests, known), shelf=_tidy(known, known))
        return before.added(batch, [()] * len(batch), hold_old=True, resolve=bool(report.replaced))
    everything = {**active.shelf, **active.requests}
    names = [key for key in active.requests if key not in report.ids] + report.restored
    requests = {key: everything[key] for key in sorted(names, key=lambda key: everything[key].number)}
    shelf = _within_reach(requests, active.shelf)
    return ActiveSet(_tidy(requests, shelf), _tidy(shelf, shelf), active.applied)


def _within_reach(
    requests: Mapping[str, ActiveRequest], shelf: Mapping[str, ActiveRequest]
) -> dict[str, ActiveRequest]:
    """What may still come back: what those at work have replaced, what that had replaced, and so on."""
    found: set[str] = set()
    waiting = list(requests.values())
    while waiting:
        new = [key for key in waiting.pop().replaced if key in shelf and key not in requests and key not in found]
        found.update(new)
        waiting += [shelf[key] for key in new]
    return {key: entry for key, entry in shelf.items() if key in found}


def _tidy(entries: Mapping[str, ActiveRequest], shelf: Mapping[str, ActiveRequest]) -> dict[str, ActiveRequest]:
    """Entries that name nothing as replaced but what is on the shelf."""
    return {
        key: replace(entry, replaced=tuple(name for name in entry.replaced if name in shelf))
        for key, entry in entries.items()
    }
