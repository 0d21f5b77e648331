"""`ReasoningBenchmark`: whether a model can still reason, while it is edited and trained.

Knows the moments at which to measure and what was measured before. Refuses to know which of them count
(`benchmark_plan.py`), what a task is and how it is asked (`lightning_edit/reasoning`), and who edits: without edits,
and outside of training, it measures as well.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from lightning_edit.callbacks.backbone import resolve_language_model
from lightning_edit.callbacks.bars import shown
from lightning_edit.callbacks.benchmark_plan import BenchmarkPlan
from lightning_edit.callbacks.continual_edit import ContinualEdit
from lightning_edit.callbacks.edit_callback import EditCallback, find_callback
from lightning_edit.callbacks.scalars import log_alone, log_scalars, write_to_loggers
from lightning_edit.callbacks.strategies import check_strategy, is_sharded, on_rank_zero, with_model
from lightning_edit.editors.report import EditReport
from lightning_edit.errors import StateError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.reasoning.benchmark import Benchmark
from lightning_edit.reasoning.ranks import Ranks
from lightning_edit.reasoning.scores import TaskScore
from lightning_edit.requests import EditRequest

VERSION = 1


class ReasoningBenchmark(EditCallback):
    """Asks the live model benchmarks of reasoning and general ability, always the same questions.

    Before training the unedited model is asked: the baseline. Then the model is asked after edits, at validations and
    at the end; `trainer.validate`, `test` and `predict` ask it once, with the edits of a `ContinualEdit` at work. Tasks
    of lm-evaluation-harness run through this package's own decoder, so an editor that acts while the model answers is
    at work; weights, modes, caches, padding and random numbers are afterwards what they were. Several processes share
    the questions and get the same numbers.

    Log keys: `reasoning/<task>`, and where a task has several metrics also `reasoning/<task>/<metric>`.

    Args:
        tasks: Names of tasks, see `docs/reasoning.md`.
        every_n_edits: Measure whenever so many more edits have been made.
        every_n_commits: Measure after each so many commits.
        every_n_validations: Measure when each so many-th validation of training starts; None for never.
        at_start: Measure the unedited model, before the first step.
        at_end: Measure when training ends, unless that has just been done.
        limit: Questions asked of each task; None for all, of the world's tasks 200.
        seed: Seed of their choice.
        data_dir: Folder of local data; None reads the Hugging Face Hub.
        num_fewshot: Worked examples before each question; None for what the task says, which is none.
        max_new_tokens: Longest answer where a task allows a longer one; None lets each have its way. With `reasoning`
            as many tokens again are for the thoughts, 8,192 where it is None.
        batch_size: Prompts in one forward.
        chat: Ask through the tokenizer's chat template.
        system: What the system says first in a chat.
        reasoning: Whether the model thinks first, so that its answer is what follows `</think>`.
        include_path: Folder with further task files of lm-eval.
        backbone: Dotted path of the transformers model, in a module that is no `EditableModule`, where no
            `ContinualEdit` knows it.
        tokenizer: Its tokenizer, or its name or folder.

    Example:
        >>> ReasoningBenchmark(tasks=["world_arithmetic", "world_two_hop"], every_n_edits=100, limit=50).summary()
        {}
    """

    def __init__(
        self,
        tasks: list[str],
        every_n_edits: int | None = None,
        every_n_commits: int | None = None,
        every_n_validations: int | None = 1,
        at_start: bool = True,
        at_end: bool = True,
        limit: int | None = 100,
        seed: int = 0,
        data_dir: str | Path | None = None,
        num_fewshot: int | None = None,
        max_new_tokens: int | None = 1024,
        batch_size: int = 16,
        chat: bool = False,
        system: str | None = None,
        reasoning: bool = False,
        include_path: str | Path | None = None,
        backbone: str | None = None,
        tokenizer: Any = None,
    ) -> None:
        self.plan = BenchmarkPlan(every_n_edits, every_n_commits, every_n_validations)
        data = (data_dir, num_fewshot, max_new_tokens, batch_size)
        self.benchmark = Benchmark(tasks, limit, seed, *data, chat, system, reasoning, include_path)
        self.at_start, self.at_end = at_start, at_end
        self.baseline: dict[str, float] = {}
        self.history: list[dict[str, float]] = []
        self.scores: dict[str, TaskScore] = {}
        self._find = (backbone, tokenizer)

    @property
    def state_key(self) -> str:
        """One state for each choice of questions."""
        return self._generate_state_key(
            tasks=self.benchmark.tasks, limit=self.benchmark.limit, seed=self.benchmark.seed
        )

    # -- what came out ---------------------------------------------------------------------------------------------

    def summary(self) -> dict[str, float | int | str | bool]:
        """The last number of each task, and the unedited model's, as plain values for a table."""
        last = {name: value for row in self.history[-1:] for name, value in row.items() if name not in PLACE}
        if not last:
            return {}
        before = {f"reasoning/{name}_before": value for name, value in self.baseline.items() if name in last}
        protocol = "; ".join(f"{name}: {self.benchmark.protocol(name)}" for name in self.benchmark.tasks)
        return {
            **{f"reasoning/{name}": value for name, value in last.items()},
            **before,
            "reasoning/protocol": protocol,
        }

    # -- the Trainer's hooks ---------------------------------------------------------------------------------------

    def setup(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", stage: str) -> None:
        """Refuse what cannot work before anything is computed."""
        check_strategy(trainer, sharded=True)

    def on_train_start(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Read the questions and ask the unedited model, unless a checkpoint holds what it said."""
        editing = find_callback(trainer, ContinualEdit)
        if not self.history:
            self.benchmark.avoid = on_rank_zero(trainer, lambda: _subjects(editing))
        if not self.at_start or self.history:
            return
        if editing is not None and editing.count:
            rank_zero_warn(
                f"The checkpoint holds {editing.count} edits but no benchmark of the unedited model, so the baseline "
                "is the model as it is now. Keep ReasoningBenchmark among the callbacks from the beginning."
            )
        rank_zero_info(f"Asking the model {', '.join(self.benchmark.tasks)} before training.")
        write_to_loggers(trainer, self._measure(trainer, pl_module))
        self.baseline = {name: value for name, value in self.history[-1].items() if name not in PLACE}

    def on_before_edit(
        self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", requests: Sequence[EditRequest]
    ) -> None:
        """Settle whether the commit is measured."""
        editing = find_callback(trainer, ContinualEdit)
        assert editing is not None  # it has announced these requests
        self.plan.next_commit(editing.count, editing.count + len(requests))

    def on_after_edit(
        self,
        trainer: "pl.Trainer",
        pl_module: "pl.LightningModule",
        requests: Sequence[EditRequest],
        report: EditReport,
    ) -> None:
        """Measure, if it is time."""
        if self.plan.take():
            log_scalars(trainer, pl_module, self._measure(trainer, pl_module))

    def on_validation_start(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Measure, if it is time: after the repair and before averaged weights may be swapped in."""
        if trainer.sanity_checking:
            return
        if trainer.state.fn != TrainerFn.FITTING:
            log_alone(trainer, pl_module, self._measure_alone(trainer, pl_module))
            return
        if self.plan.next_validation():
            self._repair(trainer, "validation")
            log_scalars(trainer, pl_module, self._measure(trainer, pl_module))

    def on_test_start(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Measure."""
        log_alone(trainer, pl_module, self._measure_alone(trainer, pl_module))

    def on_predict_start(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Measure; in `predict` Lightning keeps no metrics, so the numbers go to the loggers alone."""
        write_to_loggers(trainer, self._measure_alone(trainer, pl_module))

    def on_train_end(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Measure for the last time, after the last repair."""
        if not self.at_end:
            return
        editing = find_callback(trainer, ContinualEdit)
        renewed = editing is not None and editing.refresh
        self._repair(trainer, "end")
        if renewed or not self.history or self._place(trainer) != {name: self.history[-1][name] for name in PLACE}:
            write_to_loggers(trainer, self._measure(trainer, pl_module))

    # -- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Plain containers: what was measured, and which questions were left out."""
        return {
            "version": VERSION,
            "baseline": dict(self.baseline),
            "history": [dict(row) for row in self.history],
            "avoid": list(self.benchmark.avoid),
            **self.plan.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a saved state.

        Args:
            state_dict: What `state_dict` gave.
        """
        if state_dict.get("version") != VERSION:
            raise StateError(
                f"the checkpoint's ReasoningBenchmark has version {state_dict.get('version')!r}; expected {VERSION}."
            )
        self.baseline = dict(state_dict["baseline"])
        self.history = [dict(row) for row in state_dict["history"]]
        self.benchmark.avoid = list(state_dict["avoid"])
        self.plan.load_state_dict(state_dict)

    # -- measuring -------------------------------------------------------------------------------------------------

    def _measure(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> dict[str, float]:
        """Ask everything; the numbers by log key, the same on every rank."""
        lm = self._model(trainer, pl_module)
        with shown(trainer, lm, "asking " + ", ".join(self.benchmark.tasks)):
            if is_sharded(trainer):  # each forward needs every rank, so all of them ask everything
                self.scores = with_model(trainer, lambda: self.benchmark.run(lm, Ranks(alone=True)))
            else:
                self.scores = self.benchmark.run(lm, Ranks(alone=trainer.world_size == 1))
        values = {name: found.score for name, found in self.scores.items()}
        for name, found in self.scores.items():
            further = {metric: value for metric, value in found.metrics.items() if metric != found.metric}
            values |= {f"{name}/{metric.replace(',', '-')}": value for metric, value in further.items()}
        place = self._place(trainer)
        self.history.append({**place, **values})
        counted = {} if find_callback(trainer, ContinualEdit) is None else {"edit/count": place["count"]}
        return {**counted, **{f"reasoning/{name}": value for name, value in values.items()}}

    def _measure_alone(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> dict[str, float]:
        """Measure outside of training, with the edits at work."""
        editing = find_callback(trainer, ContinualEdit)
        if editing is not None:
            editing.put_to_work(trainer, pl_module)
        if not self.history:
            self.benchmark.avoid = on_rank_zero(trainer, lambda: _subjects(editing))
        return self._measure(trainer, pl_module)

    def _place(self, trainer: "pl.Trainer") -> dict[str, float]:
        """How many edits and steps there have been."""
        editing = find_callback(trainer, ContinualEdit)
        return {"count": 0 if editing is None else editing.count, "step": trainer.global_step}

    def _model(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> LanguageModel:
        """The model under edit, with whatever an editor has put around it; else the module's."""
        editing = find_callback(trainer, ContinualEdit)
        edited = None if editing is None else editing.find_language_model(trainer, pl_module)
        if edited is not None and self._find == (None, None):
            return edited
        return resolve_language_model(trainer, pl_module, *self._find, before=edited)

    def _repair(self, trainer: "pl.Trainer", moment: Any) -> None:
        """Ask for the repair of a moment, where somebody edits."""
        editing = find_callback(trainer, ContinualEdit)
        if editing is not None:
            editing.repair_for(trainer, moment)


PLACE = ("count", "step")
"""What a row of the history says beside the numbers."""


def _subjects(editing: ContinualEdit | None) -> list[str]:
    """Subjects of all edits that are known by now, on rank zero."""
    if editing is None:
        return []
    source = editing.session.source
    known = [*editing.session.active_requests(), *([] if source is None else [*source.committed, *source.known()])]
    return sorted({request.subject for request in known if request.subject})
