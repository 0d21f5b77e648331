"""The edits of one training run: editor, requests, and how far they got, on however many processes.

Rank zero edits, repairs and reads requests; the others get its weights. Refuses to know when an edit is due, and hooks,
loggers and the rest of the Trainer (`ContinualEdit` does).
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import lightning.pytorch as pl
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lightning_edit.callbacks.bars import shown
from lightning_edit.callbacks.commit import Commit, Elsewhere, commit
from lightning_edit.callbacks.edit_statistics import EditStatistics
from lightning_edit.callbacks.gate import Gate
from lightning_edit.callbacks.shared_targets import with_helpers
from lightning_edit.callbacks.strategies import (
    is_sharded,
    on_rank_zero,
    share_state,
    share_weights,
    with_model,
)
from lightning_edit.data.source import RequestSource
from lightning_edit.editors.editor import Editor
from lightning_edit.editors.report import EditReport
from lightning_edit.errors import StateError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.requests import EditRequest

VERSION = 1
Result = TypeVar("Result")


class EditSession:
    """Editor and stream, seen from all ranks at once; every rank calls every method in the same order.

    Args:
        editor: The editor, or None for a control run: requests pass by, and nothing changes.
        skip_bad: Leave out requests that the editor cannot take.

    Attributes:
        count: Requests handed over so far.
        seconds: Time the editor took for them.
        rejected: Ids of those that were left out.
        layers: Layers that are edited.
        source: The requests, on rank zero.
        statistics: The editor's key statistics.
        gate: What may refuse requests, and hand them to another editor.
        edited: The model that the edits belong to, also when training has ended; None before there is one.
    """

    def __init__(self, editor: Editor | None, skip_bad: bool = False) -> None:
        self.editor = editor
        self.skip_bad = skip_bad
        self.count = 0
        self.seconds = 0.0
        self.rejected: list[str] = []
        self.layers: list[int] = []
        self.source: RequestSource | None = None
        self.statistics = EditStatistics(editor)
        self.gate: Gate | None = None
        self.edited: LanguageModel | None = None
        self._lm: LanguageModel | None = None  # only while it may be edited
        self._brings_edits = False  # the editor has edited before this run
        self._loaded: dict[str, Any] | None = None
        self._place: dict[str, Any] | None = None  # of a loaded state in a stream that is not there yet
        self._said: set[str] = set()

    # -- beginning and end -----------------------------------------------------------------------------------------

    def begin(self, lm: LanguageModel, source: RequestSource | None) -> None:
        """Take up the model and the requests.

        Args:
            lm: The language model.
            source: The requests, on rank zero.
        """
        self._lm, self.edited, self.source = lm, lm, source
        self._said = set()
        if self.editor is not None:
            self._brings_edits = bool(self.editor.requests)
            self.layers = self.editor.attach(lm)

    def restore(self, trainer: "pl.Trainer") -> None:
        """Go on where a checkpoint stopped, if there is one; only rank zero edits and reads requests.

        Args:
            trainer: The Trainer.
        """
        self._restore(trainer, self._model())

    @property
    def waits(self) -> bool:
        """Whether a checkpoint's state waits for its model."""
        return self._loaded is not None

    def put_to_work(self, trainer: "pl.Trainer", lm: LanguageModel) -> None:
        """Let the editor act in a model that is not trained, where a checkpoint left it if there is one.

        Nothing is edited or repaired, and no requests are needed.

        Args:
            trainer: The Trainer.
            lm: The language model, with the weights of the same moment.
        """
        self._restore(trainer, lm)
        self.edited = lm
        if self.editor is not None and self._is_here(trainer):
            self.layers = self.editor.attach(lm)

    def finish(self, trainer: "pl.Trainer") -> None:
        """Give every rank the ledger, so that edits can be undone after training wherever one is.

        Args:
            trainer: The Trainer.
        """
        has_edits = self.count or self._brings_edits
        for editor in self._editors() if has_edits and not is_sharded(trainer) else []:
            share_state(trainer, editor)

    def release(self) -> None:
        """Let go of the model."""
        self._lm = None

    # -- statistics ------------------------------------------------------------------------------------------------

    def prepare(self, trainer: "pl.Trainer", statistics: Any) -> None:
        """Give the editor its statistics.

        Args:
            trainer: The Trainer.
            statistics: A file, or moments by layer; what rank zero has counts.
        """
        self.statistics.give(trainer, self._model(), statistics)

    def is_ready(self, trainer: "pl.Trainer") -> bool:
        """Whether the editor has what it needs to edit; a tracker among the callbacks is asked for it.

        Args:
            trainer: The Trainer.
        """
        ready = self.statistics.ask_tracker(trainer, self._model())
        if not ready:
            self._say_once("Edits wait: the KeyCovarianceTracker has not seen enough tokens yet.")
        return ready

    # -- edits -----------------------------------------------------------------------------------------------------

    def upcoming(self, trainer: "pl.Trainer", wanted: int) -> list[EditRequest]:
        """The next requests, the same on every rank.

        Args:
            trainer: The Trainer.
            wanted: How many at most.
        """

        def ask() -> list[EditRequest]:
            source = self._source()
            requests = source.upcoming(wanted)
            if not requests and source.ends:
                self._say_once(f"No edit requests are left after {self.count}. Training and repairs go on.")
            return requests

        return on_rank_zero(trainer, ask)

    def apply(self, trainer: "pl.Trainer", requests: Sequence[EditRequest]) -> EditReport:
        """Edit the model and move the cursor.

        Args:
            trainer: The Trainer.
            requests: The upcoming requests.
        """

        def act() -> Commit:
            return commit(self.editor, self._model(), requests, self.source or Elsewhere(), self.skip_bad, self.gate)

        with shown(trainer, self._model(), "editing"):
            done = self._together(trainer, act)
        self._share(trainer)
        self.count += done.count
        self.seconds += done.report.seconds.get("total", 0.0)
        self.rejected += done.rejected
        self.statistics.spend()
        return done.report

    def repair(self, trainer: "pl.Trainer", refresh: bool = False) -> EditReport | None:
        """Bring the edits back; None where there are none.

        Args:
            trainer: The Trainer.
            refresh: Also read keys again and renew targets that no longer hold.
        """
        editor = self.editor
        if editor is None or self._lm is None or not (self.count or self._brings_edits):
            return None
        lm = self._lm
        with shown(trainer, lm, "repairing edits"):
            reports = self._together(trainer, lambda: [one.repair(lm, refresh=refresh) for one in self._editors()])
        self._share(trainer)
        return reports[0]

    def active_requests(self) -> list[EditRequest]:
        """What the model should answer now, in order, on rank zero; in a control run what it would have to."""
        if self.editor is not None:
            own, others = self.editor.requests, [] if self.gate is None else self.gate.holds()
            replaced = {request.conflict_key for request in others}  # the other editor's answer is the later one
            return [request for request in own if request.conflict_key not in replaced] + others
        return list({request.conflict_key: request for request in self.handed_over()}.values())

    def handed_over(self) -> list[EditRequest]:
        """Every request so far, in order, on rank zero; also those that were replaced since."""
        return self.source.committed if self.source else []

    # -- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers; rank zero's is the one that counts."""
        if self._loaded is not None:
            return self._loaded
        return {
            "version": VERSION,
            "count": self.count,
            "seconds": self.seconds,
            "rejected": list(self.rejected),
            "editor": None if self.editor is None else self.editor.state_dict(),
            "source": self._place if self.source is None else self.source.state_dict(),
            "moments": self.statistics.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep a saved state until the model and the requests are there.

        Args:
            state: What `state_dict` gave.
        """
        if state.get("version") != VERSION:
            raise StateError(
                f"the checkpoint's edits have version {state.get('version')!r}; expected {VERSION}. Use the release of "
                "lightning_edit that wrote it."
            )
        if (state["editor"] is None) != (self.editor is None):
            raise StateError("a control run and a run with edits cannot resume each other; give the editor as before.")
        self._loaded = state

    def _restore(self, trainer: "pl.Trainer", lm: LanguageModel) -> None:
        """Take up a loaded state; the place in the stream as soon as there is one."""
        state, self._loaded = self._loaded, None
        if state is not None:
            self.count, self.seconds, self.rejected = state["count"], state["seconds"], list(state["rejected"])
            self._place = state["source"] if trainer.is_global_zero else None
        if self.source is not None and self._place is not None:
            self.source.load_state_dict(self._place)
            self._place = None
        if state is not None and self.editor is not None and self._is_here(trainer):
            self.editor.load_state_dict(state["editor"])
            self.statistics.load_state_dict(lm, state["moments"])

    def _is_here(self, trainer: "pl.Trainer") -> bool:
        """Whether this rank's editor is alive."""
        acts = self.editor is not None and self.editor.acts_on_every_rank
        return trainer.is_global_zero or is_sharded(trainer) or acts

    def _source(self) -> RequestSource:
        assert self.source is not None  # rank zero has it from `begin` on
        return self.source

    def _model(self) -> LanguageModel:
        assert self._lm is not None  # from `begin` to `release`
        return self._lm

    def _together(self, trainer: "pl.Trainer", action: Callable[[], Result]) -> Result:
        """Edit on rank zero, which shares out what takes longest; on all ranks alike if the model is sharded."""
        if trainer.world_size == 1 or is_sharded(trainer):
            return with_model(trainer, action)
        return with_helpers(trainer, self._model(), self._editors(), action)

    def _share(self, trainer: "pl.Trainer") -> None:
        """Give the other ranks what an operation changed; in a sharded model each has done the same."""
        for editor in [] if is_sharded(trainer) else self._editors():
            share_weights(trainer, editor.weights(self._model()))
            if editor.acts_on_every_rank:
                share_state(trainer, editor)

    def _editors(self) -> list[Editor]:
        """The editor, and the one that takes what the gate refuses."""
        another = None if self.gate is None else self.gate.another
        return [editor for editor in (self.editor, another) if editor is not None]

    def _say_once(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            rank_zero_info(message)
