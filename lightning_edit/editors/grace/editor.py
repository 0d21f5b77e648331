"""GRACE: outputs of one projection are looked up in a codebook where a prompt is near enough to an edited one.

Source: Hartvigsen et al. 2023, *Aging with GRACE* (arXiv 2211.11031). The rule of the codebook stands in `codebook.py`,
how a request becomes a part of it in `learning.py`; this file is the order of things. What the public code does
otherwise is listed in `docs/reproducing.md`.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lightning_edit.editors.active import ActiveSet
from lightning_edit.editors.forward_editor import ForwardEditor
from lightning_edit.editors.forward_settings import GraceSettings, Replacement, Start
from lightning_edit.editors.grace.book import CodeBook
from lightning_edit.editors.grace.codebook import Entry
from lightning_edit.editors.grace.learning import Teacher, check_prompts
from lightning_edit.editors.grace.lookup import Table, replace_outputs
from lightning_edit.editors.prompt_rows import read_queries
from lightning_edit.editors.report import EditReport, Guard
from lightning_edit.model.ffn_parts import Part
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.prompt_scope import Window
from lightning_edit.model.sites import Layer
from lightning_edit.requests import EditRequest, check_batch


class GRACE(ForwardEditor[CodeBook, GraceSettings]):
    """Remembers each edit as an entry of a codebook in one block, and fires where a prompt's query falls into it.

    The query is the input of the block's FFN projection (the output projection by default) at the prompt's last token,
    in the decoder of an encoder-decoder at the start token; the value of the entry that it finds takes the place of the
    projection's output. Where none is found the forward pass is the unedited one, bit for bit. A request that
    contradicts an older one replaces it.

    As published, a split halves the space between two keys and asks for nothing else: a request that had expanded the
    entry can be left outside of its radius. It stays among `requests`, but its prompt finds another entry or none;
    `report.notes` says so. Undone and made again it is in reach.

    `undo` takes any request back. The codebook is then what its rule gives for the other requests in their order:
    radii that the request had expanded or split are as if it had never come, and what it had replaced is back. An entry
    that it shared with others stays theirs: the oldest of them gives the key, and the newest the value, which is the
    one that was found when that request was taught. No value is found anew.

    Args:
        layer: The block, by number or path; None takes the preset's, as for all that follows up to `chat`.
        part: Which projection of its FFN: `down` onto the residual stream, or `up` or `gate` onto the inner width; see
            `find_part`.
        lr: Learning rate of the values.
        steps: Adam's steps for a value.
        radius: Radius of a new entry.
        start: Where a value starts: `cold` at random numbers in [0, 1), `warm` at the output it replaces. A request
            that expands an entry starts at the entry's value.
        replacement: Which outputs are replaced: that of the prompt's `last` token, those of the `prompt` before its
            last token, or `all` of the text, what is written behind the prompt included.
        stop_loss: A value is found when its request's loss is below this; 0 makes all steps.
        chat: Put prompts through the tokenizer's chat template, as they will be asked.
        system: What the system says first in a chat; refused where `chat` is off.
        batch_size: Values in one graph.
        seed: Seed of cold starts.
        preset: Name of a model whose published settings to take; None finds them by the model's name and shape.
    """

    settings_of = "grace"

    def __init__(
        self,
        layer: Layer | None = None,
        part: Part | None = None,
        lr: float | None = None,
        steps: int | None = None,
        radius: float | None = None,
        start: Start | None = None,
        replacement: Replacement | None = None,
        stop_loss: float | None = None,
        chat: bool | None = None,
        system: str | None = None,
        batch_size: int = 32,
        seed: int = 0,
        preset: str | None = None,
    ) -> None:
        given = {"layer": layer, "part": part, "lr": lr, "steps": steps, "radius": radius, "start": start, "chat": chat}
        super().__init__(GraceSettings, {**given, "replacement": replacement, "stop_loss": stop_loss}, preset)
        self.system, self.batch_size, self.seed = system, batch_size, seed
        self._taught: Tensor | None = None  # values that are being found, a row each
        self._shelf: tuple[CodeBook, Table] | None = None  # the table of a book, on the model's device

    # -- what a user can ask for -----------------------------------------------------------------------------------

    @property
    def requests(self) -> list[EditRequest]:
        """Requests at work, in the order they were applied."""
        return [entry.request for entry in self._book.active.requests.values()]

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The codebook: which requests each entry serves, and its radius."""
        return self._book.entries

    def edit(self, module: object, requests: Iterable[EditRequest], guard: Guard | None = None) -> EditReport:
        """Put requests into the codebook, one after another, or leave everything as it was.

        Args:
            module: An `EditableModule` or `LanguageModel`.
            requests: The requests; subjects are not needed.
            guard: Called with the report when the model carries the edit; if it does not say true, all is taken back.
        """
        batch, before = list(requests), self._book
        lm = self._open(module)
        report = EditReport("edit", len(batch), [request.id for request in batch], len(self.requests))
        if not batch:
            return report
        check_batch(batch)
        teacher = Teacher(lm, self._use, self.system, self.batch_size, self.seed)
        rows = teacher.rows(batch)
        active = before.active.added(batch, [row.prompt for row in rows], hold_old=True)
        check_prompts(active)
        report.replaced = [name for name in active.shelf if name not in before.active.shelf]
        with self._transaction(lm, report, guard):
            with report.timed("keys"):
                lessons = {**before.lessons, **teacher.lessons(batch, rows)}
                book = before.moved(active, lessons, self._use.radius)
            with report.timed("values"):
                chosen = dict(zip(report.ids, rows, strict=True))
                found, report.losses = teacher.find(chosen, book, self._teaching)
            self._book = replace(book, lessons={**book.lessons, **found})
            report.notes += self._book.notes(before)
        return report

    def undo(self, module: object, ids: Iterable[str] | str, guard: Guard | None = None) -> EditReport:
        """Take requests back; what becomes of entries that they shared stands above.

        Args:
            module: An `EditableModule` or `LanguageModel`.
            ids: Ids of active requests.
            guard: As for `edit`.
        """
        names = [ids] if isinstance(ids, str) else list(ids)
        return self._take_back(self._open(module), self._book.active.removed(names), guard)

    def rollback(self, module: object, count: int, guard: Guard | None = None) -> EditReport:
        """Take back the requests that were applied last.

        Args:
            module: An `EditableModule` or `LanguageModel`.
            count: How many, those that were replaced since included.
            guard: As for `edit`.
        """
        return self._take_back(self._open(module), self._book.active.rolled_back(count), guard)

    def repair(self, module: object, refresh: bool = False, guard: Guard | None = None) -> EditReport:
        """With `refresh`, read the keys of all active requests again: they go stale when blocks below are trained.

        Args:
            module: An `EditableModule` or `LanguageModel`.
            refresh: Whether to; values stay as they are.
            guard: As for `edit`.
        """
        report, book = EditReport("repair", active=len(self.requests)), self._book
        if not refresh or not book.active.requests:
            return report
        lm = self._open(module)
        with self._transaction(lm, report, guard):
            prompts = [entry.signature for entry in book.active.requests.values()]
            queries = read_queries(lm, prompts, self._use.layer, self._use.part)
            fresh = zip(book.active.requests, queries, strict=True)
            lessons = {**book.lessons, **{name: replace(book.lessons[name], query=query) for name, query in fresh}}
            self._book = CodeBook().moved(book.active, lessons, self._use.radius)
            report.notes += self._book.notes(book)
        return report

    # -- learning --------------------------------------------------------------------------------------------------

    @property
    def _use(self) -> GraceSettings:
        assert self._settings is not None  # a model is there
        return self._settings

    @contextmanager
    def _teaching(self, values: Tensor) -> Iterator[None]:
        """Every row's output is its own value, whatever the codebook says."""
        self._taught = values
        try:
            yield
        finally:
            self._taught = None

    def _take_back(self, lm: LanguageModel, goal: ActiveSet, guard: Guard | None) -> EditReport:
        """Go to a smaller active set."""
        book = self._book
        gone = [name for name in book.active.requests if name not in goal.requests]
        report = EditReport("undo", len(gone), gone, len(goal.requests))
        report.restored = [name for name in goal.requests if name not in book.active.requests]
        if gone:
            with self._transaction(lm, report, guard):
                self._book = book.moved(goal, book.lessons, self._use.radius)
                report.notes += self._book.notes(book)
        return report

    # -- answering -------------------------------------------------------------------------------------------------

    def _act(self, x: Tensor, y: Tensor, window: Window) -> Tensor | None:
        """Put values in the place of outputs: while they are found each row's own, else those that rows find."""
        if self._taught is not None:
            every = torch.ones(len(y), dtype=torch.bool, device=y.device)
            return replace_outputs(y, self._taught, every, window, self._use.replacement)
        if not self._book.entries:
            return None
        return self._table(x.device).answer(x, y, window, self, self._use.replacement)

    def _table(self, device: torch.device) -> Table:
        """The codebook on a device."""
        shelf = self._shelf
        if shelf is None or shelf[0] is not self._book or shelf[1].keys.device != device:
            shelf = self._shelf = self._book, Table.of(self._book.entries, self._book.lessons, device)
        return shelf[1]

    # -- state -----------------------------------------------------------------------------------------------------

    def _empty(self) -> CodeBook:
        return CodeBook()

    def _fixed(self, settings: GraceSettings) -> dict[str, Any]:
        return {"radius": settings.radius, "replacement": settings.replacement}

    def _plain_book(self) -> dict[str, Any]:
        return self._book.state_dict()

    def _read_book(self, state: dict[str, Any]) -> CodeBook:
        return CodeBook.from_state(state)
