"""How new requests become a part of GRACE's codebook: where they are found, and what is put out there.

Queries are read from the model without the codebook, entries follow from them by the codebook's rule, and then values
are found, each after the one that it starts from. This file runs the model; it keeps nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from lightning_edit.chat import Chat
from lightning_edit.editors.active import ActiveSet
from lightning_edit.editors.forward_settings import GraceSettings
from lightning_edit.editors.grace.book import CodeBook
from lightning_edit.editors.grace.codebook import Lesson
from lightning_edit.editors.grace.values import Teaching, cold_start, find_values
from lightning_edit.editors.prompt_rows import PromptRow, prompt_rows, read_queries
from lightning_edit.errors import RequestError
from lightning_edit.model.ffn_parts import Part, find_part
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.requests import EditRequest


@dataclass(frozen=True, slots=True)
class Teacher:
    """Reads and teaches the requests of one edit.

    Args:
        lm: The language model.
        settings: Layer and part, learning rate, where values start.
        system: What the system says first in a chat.
        batch_size: Values in one graph.
        seed: Seed of cold starts.
    """

    lm: LanguageModel
    settings: GraceSettings
    system: str | None
    batch_size: int
    seed: int

    def rows(self, batch: Sequence[EditRequest]) -> list[PromptRow]:
        """Prompt and target of each request as tokens.

        Args:
            batch: The requests.
        """
        chat = Chat(self.system) if self.settings.chat else None
        rows = prompt_rows(self.lm, [request.prompt for request in batch], [request.target for request in batch], chat)
        lm, layer = self.lm, self.settings.layer
        ends = [lm.layout.last_of_prompt(lm, layer, len(row.prompt)) for row in rows]
        short = [request for request, end in zip(batch, ends, strict=True) if end < 1]
        if short and self.settings.replacement == "prompt":
            raise RequestError(
                f"the prompt {short[0].prompt!r} of request {short[0].id!r} has one token at {lm.site(layer).label}, "
                "and replacement='prompt' replaces those before the last; expected two. Use replacement='last'."
            )
        return rows

    def lessons(self, batch: Sequence[EditRequest], rows: Sequence[PromptRow]) -> dict[str, Lesson]:
        """What can be said of new requests before their values are found, by id.

        Args:
            batch: The requests.
            rows: Their prompts and targets.
        """
        queries = read_queries(self.lm, [row.prompt for row in rows], *self._place, self.batch_size)
        nothing = torch.zeros(find_part(self.lm, *self._place).outputs, dtype=queries.dtype)
        return {
            request.id: Lesson(query, row.target, nothing)
            for request, query, row in zip(batch, queries, rows, strict=True)
        }

    def find(
        self, rows: Mapping[str, PromptRow], book: CodeBook, teaching: Teaching
    ) -> tuple[dict[str, Lesson], dict[str, float]]:
        """New requests with their values, each found after that of the request whose entry it expands.

        Args:
            rows: Prompt and target of the new requests, by id.
            book: The codebook with them, their values still nothing.
            teaching: Puts values into the forward pass, whatever the codebook says.

        Returns:
            What is known of the new requests, and their losses, by id.
        """
        earlier = {new: old for entry in book.entries for old, new in pairwise(entry.members)}
        lessons, left = dict(book.lessons), list(rows)
        reached: dict[str, float] = {}
        while left:
            ready = [name for name in left if earlier.get(name) not in left][: self.batch_size]
            fresh = self._start(ready, lessons)
            pairs = zip(ready, fresh, strict=True)
            start = [lessons[earlier[name]].value if name in earlier else row for name, row in pairs]
            chosen = [rows[name] for name in ready]
            values, losses = find_values(self.lm, chosen, torch.stack(start), self.settings, teaching)
            for name, value, loss in zip(ready, values, losses.tolist(), strict=True):
                lessons[name] = replace(lessons[name], value=value)
                reached[name] = loss
            left = [name for name in left if name not in ready]
        return {name: lessons[name] for name in rows}, reached

    def _start(self, names: Sequence[str], lessons: Mapping[str, Lesson]) -> list[Tensor]:
        """Where values of new entries start, a vector (d,) each."""
        first = lessons[names[0]].value
        if self.settings.start == "cold":
            return list(cold_start(names, len(first), first.dtype, self.seed))
        queries = torch.stack([lessons[name].query for name in names]).to(self.lm.device, self.lm.dtype)
        with torch.no_grad():  # outside of a forward pass of the model: there is no window, so the hook keeps still
            projection = self.lm.model.get_submodule(find_part(self.lm, *self._place).path)
            return list(projection(queries).to(first))

    @property
    def _place(self) -> tuple[int, Part]:
        """Which projection."""
        return self.settings.layer, self.settings.part


def check_prompts(active: ActiveSet) -> None:
    """Refuse two targets behind the same prompt: an entry for each would leave no room for either.

    Args:
        active: Requests at work, their prompts' tokens as signatures.
    """
    known: dict[tuple[int, ...], EditRequest] = {}
    for entry in active.requests.values():
        rival = known.setdefault(entry.signature, entry.request)
        if rival.target != entry.request.target:
            raise RequestError(
                f"request {entry.request.id!r} wants {entry.request.target!r} after {entry.request.prompt!r}, but "
                f"{rival.id!r} wants {rival.target!r} there under another subject or relation; expected one target. "
                "Give both the same subject and relation, so that the later one replaces the earlier, or undo one."
            )
