"""`ContinualEdit`: knowledge edits as a part of training.

Knows when edits and repairs happen, and what a checkpoint must hold. Refuses to know where requests come from
(`request_origin.py`), what happens around a commit (`due_commit.py`), how an edit is computed (the editor does) and how
good it is (`EditMonitor` asks).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

from lightning_edit.callbacks.at_work import put_to_work, show_editor
from lightning_edit.callbacks.backbone import resolve_language_model
from lightning_edit.callbacks.cadence import Cadence
from lightning_edit.callbacks.commit import build_editor, editor_name
from lightning_edit.callbacks.companions import check_companions, check_sharded
from lightning_edit.callbacks.due_commit import commit_due
from lightning_edit.callbacks.edit_session import EditSession
from lightning_edit.callbacks.first_statistics import get_statistics
from lightning_edit.callbacks.request_origin import RequestOrigin
from lightning_edit.callbacks.scalars import write_to_loggers
from lightning_edit.callbacks.strategies import check_strategy, is_sharded
from lightning_edit.editors.editor import Editor
from lightning_edit.editors.report import EditReport
from lightning_edit.errors import StrategyError
from lightning_edit.model.language_model import LanguageModel

RepairAt = Literal["validation", "checkpoint", "end"]


class ContinualEdit(Callback):
    """Applies a stream of knowledge edits while a model trains, and keeps them alive.

    After an optimizer step that is due, the next `edits_per_commit` requests are handed to the editor, before any
    checkpoint of that step is written. Between commits training moves the weights; the editor's drift policy says what
    that means, and a repair brings the edits back. Log keys: `edit/count`, `edit/seconds_per_edit`, `edit/delta_norm`,
    `edit/pending_norm`, `edit/drift_norm`.

    Other rhythms: override `should_edit`. With Lightning's weight averaging, list this callback after it: nothing is
    edited while averaged weights are swapped in, and the final repair works on the averaged weights.

    `trainer.validate`, `test` and `predict` run the model with its edits: those of the last `fit`, or with `ckpt_path`
    the checkpoint's, whose weights have them already. What the editor keeps beside the weights (codebooks, adapters,
    side memories, texts) goes to work when the run starts. Nothing is edited or repaired, and no requests are needed.

    Args:
        editor: Name of an editor (`memit`, `alphaedit`, ...), `{"class_path": ..., "init_args": {...}}`, or an editor.
            None applies nothing and keeps the schedule: a control run.
        every_n_steps: Edit after each so many optimizer steps.
        every_n_epochs: Edit at the end of each so many epochs, after validation; 1 where neither is given.
        edits_per_commit: Requests that are handed over at once.
        max_edits: Stop after this many requests.
        editor_options: Arguments of the editor, where it is given by name.
        drift: The editor's drift policy: `adopt`, `restore` or `ignore`; its own default where None.
        repair_every_n_steps: Repair after each so many optimizer steps; where a commit is due at the same step it does
            the work, unless `refresh` asks for more.
        repair_at: Further repairs: before `validation`, before a `checkpoint` is written, at the `end` of training; all
            of them where None.
        refresh: Scheduled repairs and the one at the end also read the keys again and renew targets that no longer
            hold. Costs forward passes over all active requests, and pays where training moves lower layers.
        statistics: A file of key statistics. Without it a `KeyCovarianceTracker` among the callbacks is asked, or else
            the training data is read once before the first step.
        statistics_tokens: Length of that pass.
        requests: Edit requests (path, list, queue or other iterable), where the DataModule is no `EditStream`.
        on_bad: What to do with a request that cannot be used: `raise`, or `skip` and report.
        backbone: Dotted path of the transformers model, in a module that is no `EditableModule`.
        tokenizer: Its tokenizer, or its name or folder; found on the module or DataModule where None.
        projection: Path of the FFN output projection with `{}` for the layer, where the structure does not show it.

    Example:
        >>> ContinualEdit(editor=None, every_n_steps=50, edits_per_commit=20).should_edit(step=100)
        True
    """

    def __init__(
        self,
        editor: Editor | str | dict[str, Any] | None = "memit",
        every_n_steps: int | None = None,
        every_n_epochs: int | None = None,
        edits_per_commit: int = 10,
        max_edits: int | None = None,
        editor_options: dict[str, Any] | None = None,
        drift: Literal["adopt", "restore", "ignore"] | None = None,
        repair_every_n_steps: int | None = None,
        repair_at: list[RepairAt] | None = None,
        refresh: bool = False,
        statistics: str | Path | None = None,
        statistics_tokens: int = 100_000,
        requests: Any = None,
        on_bad: Literal["raise", "skip"] = "raise",
        backbone: str | None = None,
        tokenizer: Any = None,
        projection: str | None = None,
    ) -> None:
        if edits_per_commit < 1:
            raise StrategyError(f"found edits_per_commit={edits_per_commit}, expected at least 1")
        options = {**(editor_options or {}), **({"drift": drift} if drift and editor is not None else {})}
        self.session = EditSession(build_editor(editor, options), skip_bad=on_bad == "skip")
        self.cadence = Cadence(every_n_steps, 1 if every_n_steps is every_n_epochs is None else every_n_epochs)
        self.repairs = Cadence(repair_every_n_steps)
        self.edits_per_commit = edits_per_commit
        self.max_edits = max_edits
        self.repair_at: Sequence[RepairAt] = ("validation", "checkpoint", "end") if repair_at is None else repair_at
        self.refresh = refresh
        self.statistics = statistics
        self.statistics_tokens = statistics_tokens
        self.requests = requests
        self.on_bad: Literal["raise", "skip"] = on_bad
        self._find = (backbone, tokenizer, projection)
        self._lm: LanguageModel | None = None
        self._origin = RequestOrigin()
        self._repaired: tuple[RepairAt, int] | None = None
        self._hands_off = False  # averaged weights are swapped in, or training has failed
        self._ended = False  # the work of `on_train_end` is done

    @property
    def editor(self) -> Editor | None:
        """The editor with its ledgers; under several processes rank zero's is alive, and all have it at the end."""
        return self.session.editor

    @property
    def count(self) -> int:
        """Requests handed over so far."""
        return self.session.count

    def should_edit(self, step: int | None = None, epoch: int | None = None) -> bool:
        """Whether edits are due; override it for another rhythm.

        Called after every optimizer step and at the end of every epoch, with one of the two.

        Args:
            step: Number of optimizer steps taken.
            epoch: Index of the epoch that ends, from 0.
        """
        return self.cadence.due(step, epoch)

    def repair(self, trainer: "pl.Trainer", refresh: bool = False) -> EditReport | None:
        """Bring the edits back, if there are any and the module has its own weights; every rank must call.

        Args:
            trainer: The Trainer.
            refresh: Also read keys again, see the class.
        """
        report = None if self._hands_off else self.session.repair(trainer, refresh)
        if report is not None:
            norms = {f"edit/{name}": getattr(report, name) for name in ("drift_norm", "pending_norm")}
            write_to_loggers(trainer, {"edit/count": self.count, **norms})
        return report

    def repair_for(self, trainer: "pl.Trainer", moment: RepairAt) -> None:
        """The repair of a moment, if it is wanted and has not been made: whoever measures then may ask for it first.

        Args:
            trainer: The Trainer.
            moment: One of those of `repair_at`.
        """
        if moment in self.repair_at and self._repaired != (moment, trainer.global_step):
            self._repaired = (moment, trainer.global_step)
            self.repair(trainer, refresh=self.refresh and moment == "end")

    def summary(self) -> dict[str, float | int | str | bool]:
        """What happened, as plain values for a table."""
        editor, session = self.editor, self.session
        if editor is None:
            return {"editor": editor_name(None), "aligned": False, "edits": 0, "requests": session.count}
        edits = session.count - len(session.rejected)
        return {
            "editor": editor_name(editor),
            "aligned": editor.aligned,
            "drift": editor.drift,
            "edits": edits,
            "requests": session.count,
            "seconds_per_edit": session.seconds / max(edits, 1),
        }

    # -- the Trainer's hooks ---------------------------------------------------------------------------------------

    def setup(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", stage: str) -> None:
        """Refuse what cannot work before anything is computed."""
        self.session.release()
        self._lm = None
        if stage != "fit":
            return
        check_strategy(trainer, sharded=True)
        check_companions(trainer, self)
        if is_sharded(trainer):
            check_sharded(trainer, self)
        self.cadence.restart()  # a checkpoint, if there is one, is loaded after this
        self.repairs.restart()
        self._hands_off, self._repaired, self._ended = False, None, False

    def on_fit_start(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Find the model, the layers to edit and the requests; go on where a checkpoint stopped, if only to say so."""
        lm = self.find_language_model(trainer, pl_module)
        on_zero = trainer.is_global_zero
        self.session.begin(lm, self._origin.find(trainer, lm, self.requests, self.on_bad) if on_zero else None)
        self.session.restore(trainer)
        show_editor(pl_module, self.editor)

    def on_train_start(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Get key statistics where no tracker is at work; a sharded run has its checkpoint only now."""
        self.session.restore(trainer)
        get_statistics(self, trainer, pl_module)

    def on_train_batch_end(
        self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Edit or repair after an optimizer step that is due; in a dry run (`fast_dev_run`) after every step."""
        if not self.cadence.new_step(trainer):
            return
        due = self.should_edit(step=trainer.global_step) or bool(trainer.fast_dev_run)  # type: ignore[attr-defined]
        worn = self.repairs.due(trainer.global_step, None)
        if worn and self.refresh:  # before a commit, which brings edits back too but renews no targets
            self.repair(trainer, refresh=True)
        edited = due and commit_due(self, trainer, pl_module)
        if worn and not edited and not self.refresh:
            self.repair(trainer)

    def on_train_batch_start(
        self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", batch: Any, batch_idx: int
    ) -> None:
        """Make up for the end of an epoch that a resumed run has skipped."""
        epoch = self.cadence.missed_epoch(trainer)
        if epoch is not None and self.should_edit(epoch=epoch):
            commit_due(self, trainer, pl_module)

    def on_train_epoch_end(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Edit at the end of an epoch that is due."""
        if self.cadence.new_epoch(trainer) and self.should_edit(epoch=trainer.current_epoch):
            commit_due(self, trainer, pl_module)

    def on_validation_start(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Repair before validation; from here on averaged weights may be swapped in."""
        if trainer.state.fn != TrainerFn.FITTING:
            self.put_to_work(trainer, pl_module)
        elif not trainer.sanity_checking:
            self.repair_for(trainer, "validation")
        self._hands_off = True

    def on_validation_end(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """The module has its own weights again."""
        self._hands_off = False

    def on_test_start(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Let the edits be at work."""
        self.put_to_work(trainer, pl_module)

    def on_predict_start(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Let the edits be at work."""
        self.put_to_work(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", checkpoint: dict[str, Any]
    ) -> None:
        """Repair before the checkpoint is written: its weights are the live ones, and our state is renewed."""
        if "checkpoint" in self.repair_at and self.repair(trainer) is not None:
            checkpoint["callbacks"][self.state_key] = self.state_dict()
            if is_sharded(trainer):  # whose weights in it are copies
                checkpoint["state_dict"] = trainer.strategy.lightning_module_state_dict()

    def on_train_end(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Repair for the last time, and give every rank the ledger."""
        self._ended = True
        self.repair_for(trainer, "end")
        self.session.finish(trainer)

    def on_fit_end(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Make up for the end of training in a run that resumes after its last step: Lightning skips all of it."""
        if not self._ended:
            self.on_train_end(trainer, pl_module)

    def on_exception(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", exception: BaseException) -> None:
        """Leave the weights alone: the training step may be half done."""
        self._hands_off = True

    def teardown(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", stage: str) -> None:
        """Let go of the model."""
        self.session.release()
        self._lm = None

    # -- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers: the editor with its ledgers, and the place in the stream."""
        return {**self.session.state_dict(), "cadence": self.cadence.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep a saved state until the model and the requests are there.

        Args:
            state_dict: What `state_dict` gave.
        """
        self.session.load_state_dict(state_dict)
        self.cadence.load_state_dict(state_dict["cadence"])

    # -- the model -------------------------------------------------------------------------------------------------

    def find_language_model(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> LanguageModel:
        """The language model under edit.

        Args:
            trainer: The Trainer.
            pl_module: The module.
        """
        if self._lm is None:
            self._lm = resolve_language_model(trainer, pl_module, *self._find, before=self.session.edited)
        return self._lm

    def put_to_work(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Let the edits be at work in a model that is validated, tested or asked to predict; no weight changes.

        Called when such a run starts; whoever measures then may call it first. Edits go to the model of the last fit,
        or to that of the checkpoint which is loaded; any other is left alone.

        Args:
            trainer: The Trainer.
            pl_module: The module.
        """
        put_to_work(self, trainer, pl_module)
