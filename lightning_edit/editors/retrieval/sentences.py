"""What a text memory holds: requests as sentences, their bookkeeping, and how that is written down.

A change makes another set of requests out of the one that is held, and takes its place if everything goes well. This
file knows no prompt: what the model is told stands in `text_memory.py`.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from lightning_edit.editors.active import ActiveSet
from lightning_edit.editors.book import Book
from lightning_edit.editors.editor import Editor
from lightning_edit.editors.report import EditRefused, EditReport, Guard
from lightning_edit.editors.retrieval.following import followed
from lightning_edit.editors.retrieval.retriever import Retriever
from lightning_edit.errors import StateError
from lightning_edit.model.language_model import LanguageModel, as_language_model
from lightning_edit.requests import EditRequest

VERSION = 1


class Snapshot(NamedTuple):
    """A memory at one moment.

    Args:
        active: The requests.
        found: What the retriever knew.
    """

    active: ActiveSet
    found: Any


def sentence_of(request: EditRequest) -> str:
    """What a memory keeps of a request: its sentence, else its prompt with the target behind it.

    Args:
        request: The request.

    Example:
        >>> sentence_of(EditRequest("a", "the mayor of Korr is", "Ada Brandt", "Korr"))
        'The mayor of Korr is Ada Brandt.'
    """
    text = request.sentence or f"{request.prompt} {request.target}"
    text = text if text[-1] in ".!?…。" else f"{text}."
    return text[0].upper() + text[1:]


class SentenceMemory(Editor):
    """Keeps the sentences of requests.

    A request that contradicts an older one takes its place; undoing it brings the older one back. Requests that share
    a sentence, as those of one event do, share its place in the memory until the last of them is gone.

    Args:
        retriever: Learns the sentences whenever they change.
    """

    acts_on_every_rank = True
    in_weights = False

    def __init__(self, retriever: Retriever) -> None:
        self.retriever = retriever
        self._active = ActiveSet()
        self._texts: tuple[str, ...] = ()

    @abstractmethod
    def check(self, module: object, requests: Sequence[EditRequest]) -> None:
        """Refuse requests that the memory cannot take.

        Args:
            module: An `EditableModule` or `LanguageModel`.
            requests: The requests of one edit.
        """

    # -- edits -----------------------------------------------------------------------------------------------------

    @property
    def aligned(self) -> bool:
        """Sentences do not disturb each other in the memory: the order of edits plays no part in what it holds."""
        return True

    @property
    def requests(self) -> list[EditRequest]:
        """Requests at work, in the order they were applied."""
        return [entry.request for entry in self._active.requests.values()]

    @property
    def sentences(self) -> list[str]:
        """What the memory holds, oldest first."""
        return list(self._texts)

    @property
    def layers(self) -> list[int]:
        """None: no weight is touched."""
        return []

    def weights(self, lm: LanguageModel) -> list[Tensor]:
        """None: no weight is touched.

        Args:
            lm: The language model.
        """
        return []

    def edit(self, module: object, requests: Iterable[EditRequest], guard: Guard | None = None) -> EditReport:
        """Remember some requests, or leave everything as it was.

        Args:
            module: An `EditableModule` or `LanguageModel`.
            requests: The requests, with a subject or without.
            guard: Called with the report when the memory holds them; if it does not say true, all is taken back.
        """
        batch = list(requests)
        report = EditReport("edit", len(batch), [request.id for request in batch], len(self.requests))
        with report.timed("total"):
            self.check(module, batch)
            goal = self._active.added(batch, [()] * len(batch), hold_old=True)
            report.replaced = [key for key in goal.shelf if key not in self._active.shelf]
            return self._move(module, goal, report, guard) if batch else report

    def undo(self, module: object, ids: Iterable[str] | str, guard: Guard | None = None) -> EditReport:
        """Forget requests, as if they had never been made; what they had replaced is at work again.

        Args:
            module: An `EditableModule` or `LanguageModel`.
            ids: Ids of active requests.
            guard: As for `edit`.
        """
        names = [ids] if isinstance(ids, str) else list(ids)
        return self._take_back(module, lambda: self._active.removed(names), guard)

    def rollback(self, module: object, count: int, guard: Guard | None = None) -> EditReport:
        """Forget the requests that came last.

        Args:
            module: An `EditableModule` or `LanguageModel`.
            count: How many.
            guard: As for `edit`.
        """
        return self._take_back(module, lambda: self._active.rolled_back(count), guard)

    def follow(self, module: object, batch: Sequence[EditRequest], report: EditReport) -> None:
        """Hold the requests that another editor holds after a change of its own; both held the same before.

        Which requests stay is its decision: one that teaches commits as a whole takes back what was replaced, too.

        Args:
            module: An `EditableModule` or `LanguageModel`.
            batch: The requests that it has learned; none where it took some back.
            report: What it says of the change.
        """
        goal = followed(self._active, batch, report)
        self._move(module, goal, EditReport(report.kind, report.count), None)

    # -- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers with which another editor goes on bit for bit."""
        return {
            "version": VERSION,
            "editor": type(self).__name__,
            "book": Book(self._active).state_dict(),
            "retriever": self.retriever.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another memory stood.

        Args:
            state: What `state_dict` gave.
        """
        if state.get("version") != VERSION or "book" not in state:
            raise StateError(
                f"found a state of version {state.get('version')!r} with {sorted(state)}; expected a text memory of "
                f"version {VERSION}. Load what `save` of such an editor wrote."
            )
        own = type(self).__name__
        if state.get("editor", own) != own:  # states of early versions do not say it
            raise StateError(
                f"the saved editor is {state['editor']!r}; expected {own!r}. Load it with the editor that saved it."
            )
        active = Book.from_state(state["book"]).active
        self.retriever.load_state_dict(state["retriever"])
        self._hold(active)

    def snapshot(self) -> Snapshot:
        """What the memory holds and its retriever knows, for `restore`."""
        return Snapshot(self._active, self.retriever.snapshot())

    def restore(self, snapshot: Snapshot) -> None:
        """Hold again what was held.

        Args:
            snapshot: What `snapshot` gave.
        """
        self._hold(snapshot.active)
        self.retriever.restore(snapshot.found)

    def _hold(self, active: ActiveSet) -> None:
        self._active = active
        self._texts = tuple(dict.fromkeys(sentence_of(entry.request) for entry in active.requests.values()))

    def _take_back(self, module: object, find: Callable[[], ActiveSet], guard: Guard | None) -> EditReport:
        report = EditReport("undo", active=len(self.requests))
        with report.timed("total"):
            goal = find()
            report.ids = [key for key in self._active.requests if key not in goal.requests]
            report.count = len(report.ids)
            report.restored = [key for key in goal.requests if key not in self._active.requests]
            return self._move(module, goal, report, guard) if report.ids else report

    def _move(self, module: object, goal: ActiveSet, report: EditReport, guard: Guard | None) -> EditReport:
        """Hold another set of requests, if everything goes well and the guard agrees."""
        lm, before, memory = as_language_model(module), self.snapshot(), as_language_model(module).memory
        try:
            self.attach(lm)
            self._hold(goal)
            self.retriever.learn(self._texts)
            report.active = len(goal.requests)
            if guard is not None and not guard(report):
                raise EditRefused(
                    f"the guard refused this {report.kind} of {report.count} requests; the memory is as before."
                )
        except BaseException:
            self.restore(before)
            lm.memory = memory
            raise
        return report
