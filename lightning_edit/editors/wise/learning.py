"""One commit of WISE: request after request, each with the texts it is learned with.

A request is learned bare and behind other texts, beside texts that have nothing to do with it. Both are settled at the
first edit and stay what they were. How one request is taught stands in `teaching.py`; this file keeps nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from lightning_edit.chat import Chat
from lightning_edit.editors.contexts import resolve_contexts
from lightning_edit.editors.forward_settings import WiseSettings
from lightning_edit.editors.presets import choose_preset
from lightning_edit.editors.prompt_rows import PromptRow, prompt_rows
from lightning_edit.editors.report import EditReport
from lightning_edit.editors.wise.book import SideBook
from lightning_edit.editors.wise.side import Side
from lightning_edit.editors.wise.teaching import Trying, shard_mask, teach
from lightning_edit.model.ffn_parts import find_part
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.weights import read_weight
from lightning_edit.requests import EditRequest

SAMPLED, LENGTH = 16, 16  # unrelated texts that are sampled where none are given, and their length in tokens


def settle_texts(
    lm: LanguageModel, book: SideBook, contexts: list[str] | int | None, texts: Sequence[str], seed: int
) -> SideBook:
    """The book with texts before prompts and unrelated ones; where it has them they stay, but for the user's own.

    Args:
        lm: The language model, borrowed.
        book: The book.
        contexts: Texts before prompts, a number to sample from the model, or None for the preset's.
        texts: The user's unrelated texts; without any, the book's, and where it has none some are sampled.
        seed: Seed of what is sampled.
    """
    if book.contexts is None:
        own = contexts is None and not lm.layout.separate  # an encoder-decoder's preset says nothing of texts
        wanted = choose_preset(lm).contexts if own else contexts
        book = replace(book, contexts=resolve_contexts(lm, wanted, seed))
    if texts or not book.texts:
        found = texts or resolve_contexts(lm, SAMPLED, seed + 1, LENGTH)
        book = replace(book, texts=tuple(text.strip() for text in found))
    return book


@dataclass(frozen=True, slots=True)
class Pupil:
    """The side memories of one moment, about to learn.

    Args:
        lm: The language model, borrowed.
        book: The book, its texts settled.
        settings: How requests are learned.
        system: What the system says first in a chat.
        seed: Seed of masks and merges.
        trying: Puts a task vector into the forward pass.
    """

    lm: LanguageModel
    book: SideBook
    settings: WiseSettings
    system: str | None
    seed: int
    trying: Trying

    @property
    def side(self) -> Side:
        """The side memories before, blank ones at first."""
        place = find_part(self.lm, self.settings.layer, self.settings.part)
        wide = self.lm.dtype if self.lm.dtype == torch.float64 else torch.float32
        return self.book.side or Side.blank(place.outputs, place.inputs, wide)

    def learn(self, batch: Sequence[EditRequest], report: EditReport) -> Side:
        """The side memories after some more requests, one after another.

        Args:
            batch: The requests.
            report: Where losses and the change's norm go.
        """
        side = self.side
        for request in batch:
            side = self._learn(side, request, report)
        return side

    def _learn(self, side: Side, request: EditRequest, report: EditReport) -> Side:
        """The side memories after one more request."""
        lm, texts, count = self.lm, self.book.texts, self.settings.unrelated
        chosen = [texts[(side.edits * count + index) % len(texts)] for index in range(count)]
        unrelated = [PromptRow(tuple(ids)) for ids in lm.layout.read_prompts(lm, chosen)]
        projection = lm.model.get_submodule(find_part(lm, self.settings.layer, self.settings.part).path)
        main = read_weight(projection).to(side.current.task.dtype)
        task = side.current.task.to(main.device)
        mask = shard_mask(task, self.settings.density, side.shard, self.seed)
        task, loss, difference = teach(lm, self._rows(request), unrelated, task, mask, main, self.settings, self.trying)
        report.losses[request.id] = loss
        report.delta_norm = float(torch.tensor(report.delta_norm).hypot((task.cpu() - side.current.task).norm()))
        return side.after(task.cpu(), difference, self.settings, self.seed)

    def _rows(self, request: EditRequest) -> list[PromptRow]:
        """The request's prompt, bare and behind other texts, or as a turn of a chat."""
        if self.settings.chat:
            return prompt_rows(self.lm, [request.prompt], [request.target], Chat(self.system))
        prompts = [request.prompt, *(context + request.prompt for context in self.book.contexts or ())]
        return prompt_rows(self.lm, prompts, [request.target] * len(prompts))
