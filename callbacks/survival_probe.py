"""`SurvivalProbe`: whether edits outlive training, and what is left when they are taken back.

Knows steps: it asks at a rhythm of its own, between commits and repairs, where `EditMonitor` asks at commits. When
training ends it takes all edits back on trial, looks, and leaves everything as it was. Refuses to know policies; the
editor has one.
"""

from collections.abc import Sequence
from typing import Literal

import lightning.pytorch as pl
import torch
from torch import Tensor

from lightning_edit.callbacks.bars import shown
from lightning_edit.callbacks.cadence import Cadence
from lightning_edit.callbacks.edit_callback import EditCallback
from lightning_edit.callbacks.scalars import log_scalars, write_to_loggers
from lightning_edit.callbacks.strategies import on_rank_zero
from lightning_edit.callbacks.watching import find_edited
from lightning_edit.editors.editor import Editor
from lightning_edit.editors.registry import get_editor
from lightning_edit.editors.report import EditRefused, EditReport
from lightning_edit.errors import StrategyError
from lightning_edit.evaluation import Baseline, Evaluator, say
from lightning_edit.judge import exact_match
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.weights import read_weight
from lightning_edit.requests import EditRequest


class SurvivalProbe(EditCallback):
    """Asks about all edits so far at a rhythm of optimizer steps; stands behind `ContinualEdit` among the callbacks.

    Log keys: `edit/reliability`, `edit/generalization`, `edit/locality`, and `edit/site_change`, the distance of the
    edited weights from where training found them, relative to their length. Keys of the row, besides the last of
    these: with all edits taken back on trial, `undone_reliability` is the share of prompts still answered as edited,
    `undone_restored` the share answered as before training, `undone_locality` and `undone_change` are what their names
    say. In a control run the same questions are asked.

    Args:
        every_n_steps: Ask after each so many optimizer steps.
        budget: Number of edits that are asked about; None asks about all.
        paraphrases: Paraphrases asked per edit.
        locality: Locality probes asked per edit.
        decode: `greedy`, or `teacher_forced`, which is cheaper and flatters.
        undo: Whether to take all edits back on trial when training ends.
        layers: Layers whose weights are watched; the editor's, or those that MEMIT would edit, where None.
        seed: Seed of the choice.
    """

    def __init__(
        self,
        every_n_steps: int = 25,
        budget: int | None = 50,
        paraphrases: int = 1,
        locality: int = 2,
        decode: Literal["greedy", "teacher_forced"] = "greedy",
        undo: bool = True,
        layers: list[int] | None = None,
        seed: int = 0,
    ) -> None:
        self.cadence = Cadence(every_n_steps)
        self.evaluator = Evaluator(budget, paraphrases, locality, 0, seed, decode)
        self.undo = undo
        self.layers = layers
        self.row: dict[str, float] = {}
        self._requests: list[EditRequest] = []
        self._baseline: Baseline | None = None
        self._answers: dict[str, str] = {}  # to the edits' prompts, before training
        self._start: dict[int, Tensor] = {}  # weights (d, n) before training

    def summary(self) -> dict[str, float | int | str | bool]:
        """The last measurement, and what undo gave back, as plain values for a table."""
        return dict(self.row)

    def on_train_start(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Ask the model before training everything that will be asked later, and copy the weights that edits go to."""
        self.cadence.restart()
        editing, lm = find_edited(trainer, pl_module, self)
        editor = editing.editor or get_editor("memit")
        layers = self.layers or editor.attach(lm)

        def ask() -> None:
            source = editing.session.source
            known = source.known() if source is not None else []
            if editing.max_edits is not None:
                known = known[: editing.max_edits]
            self._baseline = self.evaluator.measure_baseline(lm, known)
            drawn = self.evaluator.draw(known)
            self._answers = say(lm, [request.prompt for request in drawn], self.evaluator.options)
            self._start = {layer: read_weight(lm.projection(layer)).clone() for layer in layers}

        with shown(trainer, lm, "asking the unedited model"):
            on_rank_zero(trainer, ask)

    def on_after_edit(
        self,
        trainer: "pl.Trainer",
        pl_module: "pl.LightningModule",
        requests: Sequence[EditRequest],
        report: EditReport,
    ) -> None:
        """Remember what the model is asked about, in a control run too."""
        self._requests += requests

    def on_train_batch_end(
        self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Ask, if it is time."""
        if self.cadence.new_step(trainer) and self.cadence.due(trainer.global_step, None) and self._requests:
            log_scalars(trainer, pl_module, self._measure(trainer, pl_module))

    def on_train_end(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Ask for the last time, after the last repair, and take the edits back on trial."""
        if not self._requests:
            return
        editing, lm = find_edited(trainer, pl_module, self)
        editing.repair_for(trainer, "end")
        write_to_loggers(trainer, self._measure(trainer, pl_module))
        editor = editing.editor
        if self.undo and editor is not None and editor.requests:
            with shown(trainer, lm, "taking the edits back on trial"):
                self.row |= on_rank_zero(trainer, lambda: self._undone(editor, lm))

    def _measure(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> dict[str, float]:
        """The numbers by log key, the same on every rank."""
        editing, lm = find_edited(trainer, pl_module, self)

        def measure() -> dict[str, float]:
            scores = self.evaluator.evaluate(lm, self._requests, self._baseline)
            return {**scores, "site_change": self._change(lm)}

        with shown(trainer, lm, "asking about edits"):
            values = on_rank_zero(trainer, measure)
        self.row |= values
        return {"edit/count": float(editing.count), **{f"edit/{name}": value for name, value in values.items()}}

    def _undone(self, editor: Editor, lm: LanguageModel) -> dict[str, float]:
        """What the model says and is with all edits taken back; model and editor are as before afterwards."""
        found: dict[str, float] = {}

        def look(report: EditReport) -> bool:
            scores = self.evaluator.evaluate(lm, self._requests, self._baseline)
            said = say(lm, self._answers, self.evaluator.options)
            same = [exact_match(said[prompt], answer) for prompt, answer in self._answers.items()]
            found["undone_reliability"] = scores["reliability"]
            found["undone_restored"] = sum(same) / len(same)
            found["undone_change"] = self._change(lm)
            if "locality" in scores:
                found["undone_locality"] = scores["locality"]
            return False

        try:
            editor.undo(lm, [request.id for request in editor.requests], look)
        except EditRefused:
            return found  # the trial is over: the guard refused, so everything is as it was
        raise StrategyError(f"{type(editor).__name__} undid all edits although the guard refused; expected a refusal.")

    def _change(self, lm: LanguageModel) -> float:
        """||W - W_start|| / ||W_start|| over the watched layers."""
        away = [
            (read_weight(lm.projection(layer)).double() - old.double()).norm() for layer, old in self._start.items()
        ]
        return float(
            torch.stack(away).norm() / torch.stack([old.double().norm() for old in self._start.values()]).norm()
        )
