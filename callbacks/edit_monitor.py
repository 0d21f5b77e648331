"""`EditMonitor`: whether edits hold, and what they cost, while training runs.

Knows the moments at which to ask. Refuses to know which of them count (`measuring.py`), what has to be remembered
(`examiner.py`), what came out (`edit_history.py`), how questions are answered and judged (`evaluation/`), and who
edits: it is told of commits, and a control run, where nothing is edited, is watched in the same way.
"""

from collections.abc import Sequence
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from lightning_edit.callbacks.asking_alone import ask_alone
from lightning_edit.callbacks.bars import shown
from lightning_edit.callbacks.clock import Clock
from lightning_edit.callbacks.edit_callback import EditCallback
from lightning_edit.callbacks.edit_history import EditHistory, Row
from lightning_edit.callbacks.examiner import Examiner
from lightning_edit.callbacks.measuring import PAPER_COUNTS, MeasuringPlan, is_last
from lightning_edit.callbacks.scalars import keep_metric, log_alone, log_scalars, write_to_loggers
from lightning_edit.callbacks.strategies import check_strategy, on_rank_zero
from lightning_edit.callbacks.watching import find_edited, find_editing
from lightning_edit.editors.report import EditReport
from lightning_edit.errors import StateError
from lightning_edit.evaluation import AnswerOptions, Baseline, Evaluator
from lightning_edit.evaluation.quality import protocol_of
from lightning_edit.evaluation.reading import Until
from lightning_edit.judges.base import Judge
from lightning_edit.judges.build import get_judge
from lightning_edit.requests import EditRequest

VERSION = 2


class EditMonitor(EditCallback):
    """Measures edits in 0..1: reliability, generalization, locality and portability of all so far, and of each batch.

    Which edits and probes are asked is fixed by a seed, so that a curve compares like with like at a constant price.
    Locality is the share of answers that are still those of the model before any edit. That baseline is measured once,
    before the first training step, for all requests that are known by then; the probes of a request that arrives later
    are asked just before it is applied, on the model as it is then. Commit locality compares answers just before a
    commit with those just after, so that training's own drift is not blamed on edits. Right after each commit some of
    its own edits are asked about; `retention` is the share of edits that were right then and still are. In a control
    run (`ContinualEdit(editor=None)`) the same questions are asked at the same times.

    `trainer.validate` and `trainer.test` ask once about the edits at work, with what the checkpoint holds of the
    unedited model; `predict` does not ask.

    Log keys: `edit/reliability`, `edit/generalization`, `edit/locality`, `edit/portability`, `edit/retention`,
    `edit/commit_locality`; of the batch `edit/batch_reliability`, `edit/batch_generalization`,
    `edit/batch_portability`; with another judge `edit/judge_agreement`; with options `edit/..._teacher_forced`,
    `edit/..._high_logp` and `edit/..._low_logp`, `edit/locality/<kind>` and `edit/portability/<kind>`.

    Args:
        every_n_commits: Measure after each so many commits; None for not at all.
        at_counts: Measure as soon as so many edits have been made, for each number in the list; `all` among them is
            the last edit of a file or list, or the `max_edits`-th, or the end of training. `paper` in place of a
            list is 1, 10, 20, 50, 100, 200, 500, 1000 and all, as in *Revisiting*.
        at_start: Measure the unedited model, before the first step.
        at_validation: Measure when validation starts.
        at_end: Measure when training ends.
        commit_locality: Whether to compare answers before and after each commit that is measured.
        batch_budget: Edits of each commit that are asked about right after it; 0 for none, null for all.
        budget: Number of edits that are asked about; None asks about all.
        paraphrases: Paraphrases asked per edit.
        locality: Locality probes asked per edit.
        portability: Portability probes asked per edit.
        decode: `greedy`, or `teacher_forced`, which is cheaper and flatters.
        teacher_forced: Also score the same edits teacher-forced, beside what the model writes.
        judge: What gives the verdicts: `exact_match` (where None), `begins`, `contains`, a judge, or its `class_path`
            and `init_args`, such as those of `lightning_edit.judges.LLMJudge`.
        by_confidence: Also split the shares by the unedited model's confidence in the answers that requests call `old`.
        by_kind: Also give locality and portability for each kind of probe.
        confidence_template: How that confidence is asked for, with `{}` for the prompt.
        chat: Ask through the tokenizer's chat template.
        system: What the system says first in a chat.
        reasoning: Whether the model thinks before it answers, and the answer follows `</think>`.
        until: Where an answer ends: `sentence`, `line` or `end`.
        seed: Seed of the choice.
        max_new_tokens: Longest answer; where None, 24 tokens, in a chat 50, of a reasoning model 1024.
        thought_tokens: Longest text behind a prompt that asks for thoughts.
        batch_size: Prompts in one forward.
    """

    def __init__(
        self,
        every_n_commits: int | None = 1,
        at_counts: list[int | Literal["all"]] | Literal["paper"] | None = None,
        at_start: bool = False,
        at_validation: bool = False,
        at_end: bool = True,
        commit_locality: bool = True,
        batch_budget: int | None = 10,
        budget: int | None = 100,
        paraphrases: int = 1,
        locality: int = 2,
        portability: int = 1,
        decode: Literal["greedy", "teacher_forced"] = "greedy",
        teacher_forced: bool = False,
        judge: Judge | str | dict[str, Any] | None = None,
        by_confidence: bool = False,
        by_kind: bool = False,
        confidence_template: str = "{}",
        chat: bool = False,
        system: str | None = None,
        reasoning: bool = False,
        until: Until = "sentence",
        seed: int = 0,
        max_new_tokens: int | None = None,
        thought_tokens: int = 96,
        batch_size: int = 64,
    ) -> None:
        longest = max_new_tokens or (1024 if reasoning else 50 if chat else 24)
        options = AnswerOptions(longest, thought_tokens, batch_size, until, chat, system, reasoning)
        asked = (budget, paraphrases, locality, portability, seed, decode)
        evaluator = Evaluator(*asked, by_kind, options, get_judge(judge))
        counts = PAPER_COUNTS if at_counts == "paper" else at_counts or ()
        self.plan = MeasuringPlan(every_n_commits, counts)
        self.examiner = Examiner(evaluator, batch_budget, teacher_forced, by_confidence, confidence_template)
        self.at_start, self.at_validation, self.at_end = at_start, at_validation, at_end
        self.commit_locality, self.each_batch = commit_locality, batch_budget != 0
        self.measured = EditHistory()
        self._due = False
        self._told = False  # a remark on the answers, once
        self._clock: Clock | None = None

    # -- what came out ---------------------------------------------------------------------------------------------

    @property
    def baseline(self) -> Baseline | None:
        """The unedited model's answers to locality probes, on rank zero."""
        return self.examiner.baseline

    @property
    def options(self) -> AnswerOptions:
        """How the model is asked."""
        return self.examiner.options

    @property
    def history(self) -> list[Row]:
        """Every measurement of all edits so far, with `count` and `step`."""
        return self.measured.rows

    @property
    def batches(self) -> list[Row]:
        """Every measurement of one commit right after it, with `count` and `step`."""
        return self.measured.batches

    def summary(self) -> dict[str, float | int | str | bool]:
        """The last measurement, means over commits, and how all of it was measured, as plain values for a table."""
        mine = self.examiner.evaluator
        protocol = protocol_of(mine.decode, mine.options, against_unedited=True, judge=mine.judge)
        return {**self.measured.summary(), "protocol": protocol.name}

    # -- the Trainer's hooks ---------------------------------------------------------------------------------------

    def on_train_start(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Ask the unedited model everything that will be asked later, unless a checkpoint holds its answers."""
        self._clock = Clock(trainer)
        editing, lm = find_edited(trainer, pl_module, self)

        def measure() -> Row | None:
            source = editing.session.source
            if self.baseline is not None or source is None:
                return None
            if editing.count:
                rank_zero_warn(
                    f"The checkpoint holds {editing.count} edits but no answers of the unedited model, so locality is "
                    "measured against the model as it is now. Keep EditMonitor among the callbacks from the beginning."
                )
            known = [*source.committed, *source.known()]
            rank_zero_info(f"Asking the model {self.examiner.probes(known)} locality probes before training.")
            self.examiner.begin(lm, known)
            return self.examiner.base_rates(lm, known) if self.at_start and not editing.count else None

        with shown(trainer, lm, "asking the unedited model"):
            values = on_rank_zero(trainer, measure)
        if values:
            write_to_loggers(trainer, self.measured.add(editing.count, trainer.global_step, values))

    def on_before_edit(
        self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", requests: Sequence[EditRequest]
    ) -> None:
        """Complete the baseline, and write down what the model says just before the commit."""
        editing, lm = find_edited(trainer, pl_module, self)
        last = on_rank_zero(trainer, lambda: is_last(editing, requests))
        self._due = self.plan.next_commit(editing.count, editing.count + len(requests), last)

        def ask() -> None:
            everything = [*editing.session.handed_over(), *requests]
            self.examiner.begin(lm, everything)
            if self._due and self.commit_locality:
                self.examiner.look(lm, everything, requests)

        with shown(trainer, lm, "asking before the commit"):
            on_rank_zero(trainer, ask)

    def on_after_edit(
        self,
        trainer: "pl.Trainer",
        pl_module: "pl.LightningModule",
        requests: Sequence[EditRequest],
        report: EditReport,
    ) -> None:
        """Measure the batch, and everything so far if it is time."""
        if self._due or self.each_batch:
            log_scalars(trainer, pl_module, self._measure(trainer, pl_module, self._due, requests))
        self._due = False

    def on_train_batch_end(
        self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Say how long it will take, about once a second."""
        left = self._clock.seconds_left(trainer) if self._clock else None
        if left is not None:
            keep_metric(trainer, pl_module, "seconds_left", left)

    def on_validation_start(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Measure, if asked to, after the repair and before averaged weights may be swapped in."""
        if trainer.state.fn != TrainerFn.FITTING:
            log_alone(trainer, pl_module, self._measure_alone(trainer, pl_module))
        elif self.at_validation and not trainer.sanity_checking:
            find_edited(trainer, pl_module, self)[0].repair_for(trainer, "validation")
            log_scalars(trainer, pl_module, self._measure(trainer, pl_module))

    def on_test_start(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Measure."""
        log_alone(trainer, pl_module, self._measure_alone(trainer, pl_module))

    def on_train_end(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Measure for the last time, after the last repair."""
        if self.plan.training_ends() or self.at_end:
            find_edited(trainer, pl_module, self)[0].repair_for(trainer, "end")
            write_to_loggers(trainer, self._measure(trainer, pl_module))

    # -- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Plain containers: the unedited model's answers, and what was measured."""
        parts = {"examiner": self.examiner.state_dict(), "plan": self.plan.state_dict()}
        return {"version": VERSION, **parts, **self.measured.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a saved state.

        Args:
            state_dict: What `state_dict` gave.
        """
        if state_dict.get("version") != VERSION:
            raise StateError(
                f"the checkpoint's EditMonitor has version {state_dict.get('version')!r}; expected {VERSION}."
            )
        self.measured.load_state_dict(state_dict)
        self.plan.load_state_dict(state_dict["plan"])
        self.examiner.load_state_dict(state_dict["examiner"])

    # -- measuring -------------------------------------------------------------------------------------------------

    def _measure(
        self,
        trainer: "pl.Trainer",
        pl_module: "pl.LightningModule",
        everything: bool = True,
        batch: Sequence[EditRequest] = (),
    ) -> Row:
        """Ask about the edits so far and the batch; the numbers by log key, the same on every rank."""
        editing, lm = find_edited(trainer, pl_module, self)

        def measure() -> tuple[Row, Row]:
            session = editing.session
            handed_over = session.handed_over() if everything else None
            found = self.examiner.examine(lm, handed_over, session.active_requests(), batch)
            self._tell()
            return found

        with shown(trainer, lm, "asking about edits"):
            values, of_batch = on_rank_zero(trainer, measure)
        place = (editing.count, trainer.global_step)
        logged = self.measured.add(*place, values) if everything else {}
        return logged | self.measured.add_batch(*place, of_batch)

    def _tell(self) -> None:
        """Say once that right answers go on, which no number shows."""
        if self.examiner.remark and not self._told:
            self._told = True
            rank_zero_info(self.examiner.remark)

    def _measure_alone(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> Row:
        """Ask about the edits at work, outside of training; nothing where there are none, which is said."""
        check_strategy(trainer)
        editing = find_editing(trainer, self)
        editing.put_to_work(trainer, pl_module)
        lm = editing.find_language_model(trainer, pl_module)

        with shown(trainer, lm, "asking about edits"):
            values = on_rank_zero(trainer, lambda: ask_alone(self.examiner, editing.session, lm))
        return {} if values is None else self.measured.add(editing.count, trainer.global_step, values)
