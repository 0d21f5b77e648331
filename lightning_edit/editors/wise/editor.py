"""WISE: edits go into a copy of one FFN projection, and a router decides which of the two answers a prompt.

Source: Wang et al. 2024, *WISE: Rethinking the Knowledge Memory for Lifelong Model Editing* (arXiv 2405.14768). What a
side memory is stands in `side.py`, with which texts it learns in `learning.py`, how in `teaching.py`, how a prompt is
routed in `routing.py`; this file is the order of things. What the public code does otherwise is listed in
`docs/reproducing.md`.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor

from lightning_edit.editors.forward_editor import ForwardEditor
from lightning_edit.editors.forward_settings import Merge, WiseSettings
from lightning_edit.editors.preparation import StatisticsSource
from lightning_edit.editors.report import EditReport, Guard
from lightning_edit.editors.wise.book import SideBook, beginnings
from lightning_edit.editors.wise.learning import Pupil, settle_texts
from lightning_edit.editors.wise.routing import Activation, Router, activation_difference, activation_of, add_task
from lightning_edit.editors.wise.side import Side
from lightning_edit.editors.wise.teaching import Trial
from lightning_edit.errors import EditError
from lightning_edit.model.ffn_parts import Part
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.prompt_scope import Window
from lightning_edit.model.sites import Layer
from lightning_edit.requests import EditRequest, check_batch


class WISE(ForwardEditor[SideBook, WiseSettings]):
    """Learns requests in side memories, copies of one of a block's FFN projections, and routes prompts to them.

    Each request is learned by itself, in the order given, on top of all earlier ones; nothing is reset between edits.
    A prompt is routed row by row, once, when it is read: what is written behind it stays with the memory that was
    chosen. Where that is the main memory, the forward pass is the unedited one, bit for bit.

    What is learned in one commit is one change of the side memory, which cannot be divided: `undo` and `rollback` take
    back whole commits, last ones first, and only the last `undo_depth` of them; all else is an `EditError`.

    Args:
        layer: The block, by number or path; None takes the preset's, as for all settings down to `chat`. See
            `WiseSettings` for them.
        part: Which projection of its FFN: `down` onto the residual stream, or `up` or `gate` onto the inner width; see
            `find_part`. The router puts the model's activation function behind any of them.
        lr: Learning rate.
        steps: Gradient steps for one request at most.
        alpha: Bound on the activation difference of an unrelated text.
        beta: The activation difference that an edited prompt shall reach.
        gamma: The margin between the two.
        ratio: Share of a memory's threshold from which on a prompt is routed to it.
        density: Share of the side memory's entries that a shard may change.
        norm_constraint: Bound on each entry's change.
        stop_loss: A request is learned when its loss is at most this and has settled.
        shard_edits: Edits in one shard.
        merge_shards: Shards that are merged into one memory.
        merge: How they are merged: `ties`, `dare_ties`, `dare_linear`, `magnitude`, `sign` or `linear`.
        kept: Share of entries that a merge keeps of each shard.
        retrieve: Keep merged memories side by side (WISE-Retrieve); else there is one, 0.6 of it older and 0.4 newer
            where another is added (WISE-Merge).
        unrelated: Unrelated texts beside one request.
        chat: Put prompts through the tokenizer's chat template, instead of behind other texts.
        system: What the system says first in a chat; refused where `chat` is off.
        contexts: Texts put before prompts while they are learned: a list, a number to sample from the model, or None
            for the preset's or a fixed list. The bare prompt is always learned.
        texts: Unrelated texts; None takes those of `prepare(corpus=...)`, or samples some from the model.
        undo_depth: How many of the last commits can be taken back; all if None. Each costs a copy of the side memory
            in main memory and in checkpoints.
        seed: Seed of masks and samples.
        preset: Name of a model whose published settings to take; None finds them by the model's name and shape.
    """

    settings_of = "wise"

    def __init__(
        self,
        layer: Layer | None = None,
        part: Part | None = None,
        lr: float | None = None,
        steps: int | None = None,
        alpha: float | None = None,
        beta: float | None = None,
        gamma: float | None = None,
        ratio: float | None = None,
        density: float | None = None,
        norm_constraint: float | None = None,
        stop_loss: float | None = None,
        shard_edits: int | None = None,
        merge_shards: int | None = None,
        merge: Merge | None = None,
        kept: float | None = None,
        retrieve: bool | None = None,
        unrelated: int | None = None,
        chat: bool | None = None,
        system: str | None = None,
        contexts: list[str] | int | None = None,
        texts: list[str] | None = None,
        undo_depth: int | None = 4,
        seed: int = 0,
        preset: str | None = None,
    ) -> None:
        given: dict[str, Any] = {"layer": layer, "part": part, "lr": lr, "steps": steps, "unrelated": unrelated}
        given |= {"alpha": alpha, "beta": beta, "gamma": gamma, "chat": chat, "retrieve": retrieve}
        given |= {"ratio": ratio, "density": density, "norm_constraint": norm_constraint, "stop_loss": stop_loss}
        given |= {"shard_edits": shard_edits, "merge_shards": merge_shards, "merge": merge, "kept": kept}
        if undo_depth is not None and undo_depth < 0:
            raise EditError(f"undo_depth={undo_depth}; expected 0 or more commits, or None for all.")
        super().__init__(WiseSettings, given, preset)
        self.system, self.contexts, self.undo_depth, self.seed = system, contexts, undo_depth, seed
        self._texts = tuple(texts or ())
        self._trial: Trial | None = None
        self._activation: Activation | None = None
        self._router: Router | None = None  # of a moment's side memories, on the model's device

    # -- what a user can ask for -----------------------------------------------------------------------------------

    @property
    def requests(self) -> list[EditRequest]:
        """Requests at work, in the order they were applied; one that a later commit contradicts is not among them."""
        return self._book.commits.active

    @property
    def side(self) -> Side | None:
        """The side memories; None before the first edit."""
        return self._book.side

    def prepare(
        self,
        module: object,
        statistics: StatisticsSource | None = None,
        corpus: Iterable[str] | None = None,
        max_tokens: int | None = None,
    ) -> None:
        """Take unrelated texts from a corpus; with the option `texts` there are some, and the corpus is not read.

        Args:
            module: An `EditableModule` or `LanguageModel`.
            statistics: Not needed.
            corpus: Texts that have nothing to do with any request; the first 1000 are kept, cut to 64 tokens.
            max_tokens: Read this much of the corpus at most.
        """
        lm = self._open(module)
        if corpus is not None and not self._texts:
            self._book = replace(self._book, texts=beginnings(lm, corpus, max_tokens))

    def edit(self, module: object, requests: Iterable[EditRequest], guard: Guard | None = None) -> EditReport:
        """Learn requests, one after another, in one commit, or leave everything as it was.

        Args:
            module: An `EditableModule` or `LanguageModel`.
            requests: The requests; subjects are not needed.
            guard: Called with the report when the model carries the edit; if it does not say true, all is taken back.
        """
        lm, batch, active = self._open(module), list(requests), self.requests
        report = EditReport("edit", len(batch), [request.id for request in batch], len(active))
        if not batch:
            return report
        check_batch(batch)
        self._book.commits.check_new(batch)
        keys = {request.conflict_key for request in batch}
        report.replaced = [request.id for request in active if request.conflict_key in keys]
        with self._transaction(lm, report, guard):
            with report.timed("texts"):
                self._book = settle_texts(lm, self._book, self.contexts, self._texts, self.seed)
            pupil = Pupil(lm, self._book, self._use, self.system, self.seed, self._trying)
            with report.timed("learn"):
                side = pupil.learn(batch, report)
            self._book = self._book.added(batch, pupil.side, side, self.undo_depth)
        return report

    def undo(self, module: object, ids: Iterable[str] | str, guard: Guard | None = None) -> EditReport:
        """Take the last commits back, if these are their requests.

        Args:
            module: An `EditableModule` or `LanguageModel`.
            ids: Ids of active requests.
            guard: As for `edit`.

        Raises:
            EditError: If these are not all active requests of the last commits, or a commit is older than
                `undo_depth`.
        """
        names = [ids] if isinstance(ids, str) else list(ids)
        return self._take_back(self._open(module), self._book.commits.holding(names), guard)

    def rollback(self, module: object, count: int, guard: Guard | None = None) -> EditReport:
        """Take the last commits back, which have to make up the number of requests.

        Args:
            module: An `EditableModule` or `LanguageModel`.
            count: How many requests, those that were replaced since included.
            guard: As for `edit`.

        Raises:
            EditError: If no number of commits has so many requests, or a commit is older than `undo_depth`.
        """
        return self._take_back(self._open(module), self._book.commits.last(count), guard)

    # -- learning --------------------------------------------------------------------------------------------------

    @property
    def _use(self) -> WiseSettings:
        assert self._settings is not None  # a model is there
        return self._settings

    @contextmanager
    def _trying(self, trial: Trial) -> Iterator[None]:
        """Every row is answered by the trial's memory."""
        self._trial = trial
        try:
            yield
        finally:
            self._trial = None

    def _take_back(self, lm: LanguageModel, chosen: Sequence[int], guard: Guard | None) -> EditReport:
        """Go back to before the first of some last commits."""
        active, goal = self.requests, self._book.without(chosen, self.undo_depth)
        left = {request.id for request in goal.commits.active}
        gone = [request.id for request in active if request.id not in left]
        report = EditReport("undo", len(gone), gone, len(active))
        report.restored = [key for key in (r.id for r in goal.commits.active) if key not in {r.id for r in active}]
        if chosen:
            with self._transaction(lm, report, guard):
                self._book = goal
        return report

    # -- answering -------------------------------------------------------------------------------------------------

    def _act(self, x: Tensor, y: Tensor, window: Window) -> Tensor | None:
        """Answer each row out of the memory that it was routed to; while a request is learned, out of the trial's."""
        assert self._activation is not None  # settled with the model
        if (trial := self._trial) is not None:
            other = add_task(x, y, trial.task)
            trial.differences = activation_difference(y, other, window.prompt.to(y.device), self._activation)
            return other
        side, router = self._book.side, self._router
        if side is None or not side.memories:
            return None
        if router is None or router.side is not side or router.tasks[0].device != x.device:
            tasks = [memory.task.to(x.device) for memory in side.memories]
            router = self._router = Router(side, tasks, self._use.ratio, self._activation)
        return router.answer(x, y, window, self)

    def _open(self, module: object) -> LanguageModel:
        lm = super()._open(module)
        self._activation = self._activation or activation_of(lm.model)
        return lm

    def _fitting(self, lm: LanguageModel, settings: WiseSettings) -> WiseSettings:
        if settings.chat and self._given["chat"] is None and not getattr(lm.tokenizer, "chat_template", None):
            return replace(settings, chat=False)  # a base model, with the preset of its chat model
        return settings

    # -- state -----------------------------------------------------------------------------------------------------

    def _empty(self) -> SideBook:
        return SideBook()

    def _fixed(self, settings: WiseSettings) -> dict[str, Any]:
        names = ("density", "ratio", "shard_edits", "merge_shards", "merge", "kept", "retrieve")
        return {name: getattr(settings, name) for name in names}

    def _plain_book(self) -> dict[str, Any]:
        return self._book.state_dict()

    def _read_book(self, state: dict[str, Any]) -> SideBook:
        return SideBook.from_state(state)
