"""`EditMonitor`: whether edits hold, and what they cost, while training runs.

Knows when to ask and what was asked before. Refuses to know how questions are answered and judged (`evaluation/`), and
who edits: it is told of commits, and a control run, where nothing is edited, is watched in the same way.
"""

import math
import time
from collections.abc import Sequence
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from lightning_edit.callbacks.continual_edit import ContinualEdit
from lightning_edit.callbacks.edit_callback import EditCallback, find_callback
from lightning_edit.callbacks.scalars import keep_metric, log_scalars, write_to_loggers
from lightning_edit.callbacks.strategies import on_rank_zero
from lightning_edit.editors.report import EditReport
from lightning_edit.errors import StateError, StrategyError
from lightning_edit.evaluation import AnswerOptions, Baseline, Evaluator, ask, say, shares
from lightning_edit.evaluation.questions import locality_prompts
from lightning_edit.judge import exact_match
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.requests import EditRequest, normalise

VERSION = 1


class EditMonitor(EditCallback):
    """Measures the edits so far: reliability, generalization, locality and portability, each in 0..1.

    Which edits and probes are asked is fixed by a seed, so that a curve compares like with like at a constant price.
    Locality is the share of answers that are still those of the model before any edit. That baseline is measured once,
    before the first training step, for all requests that are known by then; the probes of a request that arrives later
    are asked just before it is applied, on the model as it is then. Commit locality compares answers just before a
    commit with those just after, so that training's own drift is not blamed on edits. In a control run
    (`ContinualEdit(editor=None)`) the same questions are asked at the same times.

    Log keys: `edit/reliability`, `edit/generalization`, `edit/locality`, `edit/portability`, `edit/commit_locality`.

    Args:
        every_n_commits: Measure after each so many commits; None for not at all.
        at_counts: Measure as soon as so many edits have been made, for each number in the list.
        at_validation: Measure when validation starts.
        at_end: Measure when training ends.
        commit_locality: Whether to compare answers before and after each commit that is measured.
        budget: Number of edits that are asked about; None asks about all.
        paraphrases: Paraphrases asked per edit.
        locality: Locality probes asked per edit.
        portability: Portability probes asked per edit.
        decode: `greedy`, or `teacher_forced`, which is cheaper and flatters.
        seed: Seed of the choice.
        max_new_tokens: Longest answer.
        thought_tokens: Longest text behind a prompt that asks for thoughts.
        batch_size: Prompts in one forward.
    """

    def __init__(
        self,
        every_n_commits: int | None = 1,
        at_counts: list[int] | None = None,
        at_validation: bool = False,
        at_end: bool = True,
        commit_locality: bool = True,
        budget: int | None = 100,
        paraphrases: int = 1,
        locality: int = 2,
        portability: int = 1,
        decode: Literal["greedy", "teacher_forced"] = "greedy",
        seed: int = 0,
        max_new_tokens: int = 24,
        thought_tokens: int = 96,
        batch_size: int = 64,
    ) -> None:
        if every_n_commits is not None and every_n_commits < 1:
            raise StrategyError(f"found every_n_commits={every_n_commits}, expected at least 1, or None for never")
        self.options = AnswerOptions(max_new_tokens, thought_tokens, batch_size)
        self.evaluator = Evaluator(budget, paraphrases, locality, portability, seed, decode, options=self.options)
        self.every_n_commits = every_n_commits
        self.at_counts = sorted(at_counts or [])
        self.at_validation = at_validation
        self.at_end = at_end
        self.commit_locality = commit_locality
        self.baseline: Baseline | None = None
        self.history: list[dict[str, float]] = []
        self._commits = 0
        self._before: dict[str, str] = {}
        self._due = False
        self._clock: _Clock | None = None

    # -- what came out ---------------------------------------------------------------------------------------------

    def summary(self) -> dict[str, float | int | str | bool]:
        """The last measurement, and the mean commit locality, as plain values for a table."""
        last = {
            name: value for row in self.history[-1:] for name, value in row.items() if name not in ("count", "step")
        }
        stayed = [row["commit_locality"] for row in self.history if "commit_locality" in row]
        return {**last, **({"commit_locality": sum(stayed) / len(stayed)} if stayed else {})}

    # -- the Trainer's hooks ---------------------------------------------------------------------------------------

    def on_train_start(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Ask the unedited model everything that will be asked later, unless a checkpoint holds its answers."""
        self._clock = _Clock(trainer)
        editing, lm = self._look(trainer, pl_module)

        def measure() -> Baseline | None:
            source = editing.session.source
            if self.baseline is not None or source is None:
                return self.baseline
            if editing.count:
                rank_zero_warn(
                    f"The checkpoint holds {editing.count} edits but no answers of the unedited model, so locality is "
                    "measured against the model as it is now. Keep EditMonitor among the callbacks from the beginning."
                )
            known = [*source.committed, *source.known()]
            prompts = locality_prompts(self.evaluator.draw_ever(known))
            rank_zero_info(f"Asking the model {len(prompts)} locality probes before training.")
            return self.evaluator.measure_baseline(lm, known)

        self.baseline = on_rank_zero(trainer, measure)

    def on_before_edit(
        self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", requests: Sequence[EditRequest]
    ) -> None:
        """Complete the baseline, and write down what the model says just before the commit."""
        editing, lm = self._look(trainer, pl_module)
        self._commits += 1
        self._due = self._is_due(editing.count, editing.count + len(requests))

        def measure() -> dict[str, str]:
            everything = [*editing.session.handed_over(), *requests]
            self.baseline = self.evaluator.measure_baseline(lm, everything, self.baseline)
            if not self._due or not self.commit_locality:
                return {}
            changed = {normalise(text) for item in everything for text in (item.prompt, *item.paraphrases)}
            prompts = locality_prompts(self.evaluator.draw(requests))
            return say(lm, [prompt for prompt in prompts if normalise(prompt) not in changed], self.options)

        self._before = on_rank_zero(trainer, measure)

    def on_after_edit(
        self,
        trainer: "pl.Trainer",
        pl_module: "pl.LightningModule",
        requests: Sequence[EditRequest],
        report: EditReport,
    ) -> None:
        """Measure, if it is time."""
        if self._due:
            log_scalars(trainer, pl_module, self._measure(trainer, pl_module))
        self._due, self._before = False, {}

    def on_train_batch_end(
        self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Say how long it will take, about once a second."""
        left = self._clock.seconds_left(trainer) if self._clock else None
        if left is not None:
            keep_metric(trainer, pl_module, "seconds_left", left)

    def on_validation_start(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Measure, if asked to, after the repair and before averaged weights may be swapped in."""
        if self.at_validation and not trainer.sanity_checking and trainer.state.fn == TrainerFn.FITTING:
            self._look(trainer, pl_module)[0].repair_for(trainer, "validation")
            log_scalars(trainer, pl_module, self._measure(trainer, pl_module))

    def on_train_end(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Measure for the last time, after the last repair."""
        if self.at_end:
            self._look(trainer, pl_module)[0].repair_for(trainer, "end")
            write_to_loggers(trainer, self._measure(trainer, pl_module))

    # -- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Plain containers: the unedited model's answers, and what was measured."""
        return {
            "version": VERSION,
            "baseline": None if self.baseline is None else self.baseline.state_dict(),
            "history": [dict(row) for row in self.history],
            "commits": self._commits,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a saved state.

        Args:
            state_dict: What `state_dict` gave.
        """
        if state_dict.get("version") != VERSION:
            raise StateError(
                f"the checkpoint's EditMonitor has version {state_dict.get('version')!r}; expected {VERSION}."
            )
        self.history = [dict(row) for row in state_dict["history"]]
        self._commits = state_dict["commits"]
        if state_dict["baseline"] is not None:
            self.baseline = Baseline(self.options)
            self.baseline.load_state_dict(state_dict["baseline"])
            self.baseline.check(self.options)

    # -- measuring -------------------------------------------------------------------------------------------------

    def _measure(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> dict[str, float]:
        """Ask about the edits so far; the numbers by log key, the same on every rank."""
        editing, lm = self._look(trainer, pl_module)

        def measure() -> dict[str, float]:
            active = editing.session.active_requests()
            at_work = {request.id for request in active}
            drawn = self.evaluator.draw(editing.session.handed_over())  # the baseline covers these, replaced or not
            asked = [request for request in drawn if request.id in at_work]
            found = shares(ask(lm, asked, self.baseline, self.evaluator.decode, self.options, active))
            if self._before:
                now = say(lm, self._before, self.options)
                found["commit_locality"] = sum(
                    exact_match(now[prompt], answer) for prompt, answer in self._before.items()
                ) / len(now)
            return found

        values = on_rank_zero(trainer, measure)
        self.history.append({"count": editing.count, "step": trainer.global_step, **values})
        return {"edit/count": editing.count, **{f"edit/{name}": value for name, value in values.items()}}

    def _is_due(self, before: int, after: int) -> bool:
        """Whether the commit that takes the count from one number to another is measured."""
        rhythm = self.every_n_commits is not None and self._commits % self.every_n_commits == 0
        return rhythm or any(before < count <= after for count in self.at_counts)

    def _look(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> tuple[ContinualEdit, LanguageModel]:
        """The callback that edits, and the model it edits."""
        editing = find_callback(trainer, ContinualEdit)
        if editing is None:
            raise StrategyError(
                "EditMonitor found no ContinualEdit among the callbacks; expected one, for requests and schedule. In a "
                "run without edits use ContinualEdit(editor=None, ...), a control run."
            )
        return editing, editing.find_language_model(trainer, pl_module)


class _Clock:
    """How long the rest of training will take."""

    def __init__(self, trainer: "pl.Trainer") -> None:
        self._begin, self._first = time.monotonic(), trainer.global_step
        self._total = trainer.estimated_stepping_batches
        self._told = 0.0

    def seconds_left(self, trainer: "pl.Trainer") -> float | None:
        """Seconds left; None where nobody knows, or where it was said less than a second ago."""
        now, done = time.monotonic(), trainer.global_step - self._first
        if now - self._told < 1 or done < 1 or math.isinf(self._total):
            return None
        self._told = now
        return round((now - self._begin) / done * max(self._total - trainer.global_step, 0))
