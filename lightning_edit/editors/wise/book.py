"""All that WISE has learned, as one value, its plain form for a checkpoint, and the unrelated texts it learns beside.

This file knows texts and tokens; it runs no model.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lightning_edit.editors.commits import Commit, Commits
from lightning_edit.editors.wise.side import Side
from lightning_edit.errors import EditError
from lightning_edit.model.encoding import tokenize
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.requests import EditRequest

KEPT, LENGTH = 1000, 64
"""How many texts of a corpus are kept, and how many tokens of each."""


@dataclass(frozen=True)
class SideBook:
    """The side memories with the requests they have learned, and the texts they learn with.

    Args:
        commits: Which requests were learned together, and the side memories before and after.
        side: The side memories; None before the first edit.
        contexts: Texts that are put before a prompt while it is learned.
        texts: Unrelated texts.
    """

    commits: Commits = field(default_factory=Commits)
    side: Side | None = None
    contexts: tuple[str, ...] | None = None
    texts: tuple[str, ...] = ()

    def added(self, batch: Sequence[EditRequest], before: Side, after: Side, depth: int | None) -> "SideBook":
        """The book with one more commit.

        Args:
            batch: Its requests.
            before: The side memories before.
            after: The side memories now.
            depth: How many of the last commits can be taken back; all if None.
        """
        commit = Commit(tuple(batch), before.tensors(), after.tensors())
        return replace(self, commits=self.commits.added(commit, depth), side=after)

    def without(self, chosen: Sequence[int], depth: int | None) -> "SideBook":
        """The book before the first of some last commits.

        Args:
            chosen: Indices of the commits, ascending.
            depth: How many of the last commits can be taken back.
        """
        if not chosen:
            return self
        before = self.commits.entries[chosen[0]].before
        if before is None:
            raise EditError(
                f"asked to take back {len(chosen)} commits, but the side memory before them is kept for the last "
                f"{depth} only; expected no more. Give the editor a larger undo_depth, or None for all."
            )
        return replace(self, commits=self.commits.without(chosen), side=Side.of(before))

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers."""
        return {
            "commits": self.commits.state_dict(),
            "side": None if self.side is None else self.side.tensors(),
            "contexts": None if self.contexts is None else list(self.contexts),
            "texts": list(self.texts),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "SideBook":
        """The book that a state describes.

        Args:
            state: What `state_dict` gave.
        """
        side = None if state["side"] is None else Side.of(state["side"])
        contexts = None if state["contexts"] is None else tuple(state["contexts"])
        return cls(Commits.from_state(state["commits"]), side, contexts, tuple(state["texts"]))


def beginnings(lm: LanguageModel, corpus: Iterable[str], max_tokens: int | None) -> tuple[str, ...]:
    """Beginnings of some texts, so long as no more than a number of tokens was read.

    Args:
        lm: The language model whose tokenizer is used.
        corpus: The texts.
        max_tokens: Read so many tokens at most.
    """
    found: list[str] = []
    read = 0
    for text in corpus:
        if not text.strip():
            continue
        ids, offsets = tokenize(lm.tokenizer, [text.strip()], LENGTH)[0]
        read += len(ids)
        if len(found) == KEPT or (max_tokens is not None and read > max_tokens):
            break
        found.append(text.strip()[: offsets[-1][1]])
    if not found:
        raise EditError("the corpus holds no text; expected some texts that have nothing to do with the requests.")
    return tuple(found)
