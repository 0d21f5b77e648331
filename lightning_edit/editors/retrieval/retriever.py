"""Finding the texts that may have to do with a question.

`Retriever` is what a text memory asks of one; `make_retriever` makes them by name. This file knows neither models nor
edits.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_edit.errors import EditError, StateError

CONTRIEVER = "facebook/contriever-msmarco"


class Retriever(ABC):
    """Ranks texts by what they have to do with a question."""

    def learn(self, texts: Sequence[str]) -> None:
        """Do now what can be done before there is a question; `search` makes up for it where this was not called.

        Args:
            texts: All texts of the memory.
        """
        return

    @abstractmethod
    def scores(self, texts: Sequence[str], questions: Sequence[str]) -> list[list[float]]:
        """For each question, how well each text fits; 0 or less where they have nothing in common, if that is known.

        Args:
            texts: All texts of the memory, oldest first.
            questions: The questions.
        """

    def search(self, texts: Sequence[str], questions: Sequence[str], count: int) -> list[list[int]]:
        """For each question the indices of the texts that fit best; among equals the newest first.

        Args:
            texts: All texts of the memory, oldest first.
            questions: The questions.
            count: How many at most.
        """
        if not texts or not questions:
            return [[] for _ in questions]
        found = []
        for row in self.scores(texts, questions):
            order = sorted(range(len(row)), key=lambda index: (-row[index], -index))
            found.append([index for index in order[:count] if self.may_fit(row[index])])
        return found

    def may_fit(self, score: float) -> bool:
        """Whether a score leaves a text in the running.

        Args:
            score: One of `scores`.
        """
        return True

    def state_dict(self) -> dict[str, Any]:
        """What was dear to compute, as tensors and plain containers."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what another retriever of the same make computed.

        Args:
            state: What `state_dict` gave.
        """
        if state:
            raise StateError(
                f"the saved memory has {sorted(state)} of another retriever than {type(self).__name__}; expected the "
                "same one. Give the editor the retriever it was saved with."
            )

    def snapshot(self) -> Any:
        """What it knows, for `restore`."""
        return self.state_dict()

    def restore(self, snapshot: Any) -> None:
        """Know again what was known.

        Args:
            snapshot: What `snapshot` gave.
        """
        self.load_state_dict(snapshot)


def make_retriever(given: Retriever | Mapping[str, Any] | str) -> Retriever:
    """A retriever by name.

    Args:
        given: `bm25`; `contriever`; the Hub name or folder of an encoder of transformers, for mean pooling; a mapping
            with `kind` (`bm25`, `encoder` or `sentence_transformers`) and the arguments of that class; or a retriever.
    """
    if isinstance(given, Retriever):
        return given
    options = {"kind": given} if isinstance(given, str) else dict(given)
    kind = options.pop("kind", None)
    if kind == "bm25":
        from lightning_edit.editors.retrieval.bm25 import BM25

        return BM25(**options)
    if isinstance(given, str):
        kind, options = "encoder", {"model": CONTRIEVER if given == "contriever" else given}
    if kind == "encoder":
        from lightning_edit.editors.retrieval.encoder import TransformersEncoder

        return TransformersEncoder(**options)
    if kind == "sentence_transformers":
        from lightning_edit.editors.retrieval.encoder import SentenceTransformersEncoder

        return SentenceTransformersEncoder(**options)
    raise EditError(
        f"there is no kind of retriever {kind!r}; expected bm25, encoder or sentence_transformers, such as "
        '{"kind": "encoder", "model": "facebook/contriever"}.'
    )
