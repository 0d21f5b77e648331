"""All that GRACE has learned, as one value, and its plain form for a checkpoint.

The codebook of an active set follows from the lessons of its requests; it is kept beside them so that a resumed run has
the same numbers to the last digit. This file knows no model.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lightning_edit.editors.active import ActiveSet
from lightning_edit.editors.book import Book
from lightning_edit.editors.grace.codebook import Entry, Lesson, fold, out_of_reach


@dataclass(frozen=True)
class CodeBook:
    """A codebook with the requests it was made of.

    Args:
        active: Requests at work, and those that were replaced.
        lessons: Query, target and value of each of them, by id.
        entries: The codebook of those at work.
    """

    active: ActiveSet = field(default_factory=ActiveSet)
    lessons: Mapping[str, Lesson] = field(default_factory=dict)
    entries: tuple[Entry, ...] = ()

    def moved(self, goal: ActiveSet, lessons: Mapping[str, Lesson], radius: float) -> "CodeBook":
        """The codebook of another active set: this one and more where nothing leaves it, else made anew.

        Args:
            goal: The active set.
            lessons: What is known of its requests.
            radius: Radius of a new entry.
        """
        known = {name: lesson for name, lesson in lessons.items() if goal.knows([name])}
        new = [name for name in goal.requests if name not in self.active.requests]
        if len(new) + len(self.active.requests) == len(goal.requests):  # nothing has left
            last = max((entry.number for entry in self.active.requests.values()), default=-1)
            if all(goal.requests[name].number > last for name in new):
                return CodeBook(goal, known, fold(self.entries, new, known, radius))
        return CodeBook(goal, known, fold((), goal.requests, known, radius))

    def notes(self, before: "CodeBook") -> list[str]:
        """What a person should hear of requests that are out of their entry's reach, and were not before.

        Args:
            before: The codebook before.
        """
        known = set(out_of_reach(before.entries, before.lessons))
        lost = [name for name in out_of_reach(self.entries, self.lessons) if name not in known]
        entry_of = {name: entry for entry in self.entries for name in entry.members}
        return [
            f"request {name!r} is out of reach: the entry of {entry_of[name].founder!r}, which it had expanded, has "
            f"the radius {entry_of[name].radius:.3g} after a split. Undo it and make it again for one in reach."
            for name in lost
        ]

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers."""
        lessons = {
            name: {"query": lesson.query, "target": list(lesson.target), "value": lesson.value}
            for name, lesson in self.lessons.items()
        }
        entries = [{"members": list(entry.members), "radius": entry.radius} for entry in self.entries]
        return {"active": Book(self.active).state_dict(), "lessons": lessons, "entries": entries}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "CodeBook":
        """The codebook that a state describes.

        Args:
            state: What `state_dict` gave.
        """
        lessons = {
            name: Lesson(saved["query"].cpu().clone(), tuple(saved["target"]), saved["value"].cpu().clone())
            for name, saved in state["lessons"].items()
        }
        entries = tuple(Entry(tuple(saved["members"]), saved["radius"]) for saved in state["entries"])
        return cls(Book.from_state(state["active"]).active, lessons, entries)
