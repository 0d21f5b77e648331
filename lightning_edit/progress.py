"""How far work on a model has come, for whoever waits.

Whatever runs a model over many texts (decoding, scoring, optimising targets) says how many there are and how many are
done. Who listens, the caller decides: nobody, a bar of its own, or the bars of a Trainer (`lightning_edit/bars.py`).
This file knows numbers; it does not know what the work is.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar, runtime_checkable

Item = TypeVar("Item")


class Progress:
    """Hears of work; this one tells nobody."""

    def more(self, count: int) -> None:
        """So much more is to be done.

        Args:
            count: Texts, steps, or whatever is counted.
        """

    def done(self, count: int = 1) -> None:
        """So much of it is done.

        Args:
            count: How much.
        """

    def each(self, items: Sequence[Item]) -> Iterator[Item]:
        """Items one by one, each counted when the next one is asked for; those that nobody asks for are done at once.

        Args:
            items: The items.

        Example:
            >>> for step in Progress().each(range(3)):
            ...     print(step)
            0
            1
            2
        """
        left = len(items)
        self.more(left)
        try:
            for item in items:
                yield item
                left -= 1
                self.done()
        finally:
            self.done(left)

    def close(self) -> None:
        """No more will come."""


@runtime_checkable
class Worker(Protocol):
    """What says how far it has come: a language model, a judge that asks another model.

    Attributes:
        progress: Who is told.
    """

    progress: Progress


@contextmanager
def lent(worker: Worker, progress: Progress) -> Iterator[None]:
    """Let a worker report to somebody for a while.

    Args:
        worker: The worker.
        progress: Who is told.
    """
    before, worker.progress = worker.progress, progress
    try:
        yield
    finally:
        worker.progress = before


@contextmanager
def watched(worker: Worker, progress: Progress) -> Iterator[None]:
    """Let a worker report to somebody who listens to nothing else, and is told when it is over.

    Args:
        worker: The worker.
        progress: Who is told.
    """
    try:
        with lent(worker, progress):
            yield
    finally:
        progress.close()
