"""What a monitor asks about edits, and what it has to remember for that: on rank zero, without a Trainer.

Knows requests, answers and shares. Refuses to know when it is time to ask (`edit_monitor.py`) and how questions are
answered and judged (`lightning_edit/evaluation/`).
"""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

from lightning_edit.errors import EditError, StateError
from lightning_edit.evaluation import AnswerOptions, Baseline, Evaluator, Outcome, ask, say, shares
from lightning_edit.evaluation.answering import answer_greedy
from lightning_edit.evaluation.confidence import measure_confidence, shares_by_confidence
from lightning_edit.evaluation.going_on import remark_on_going_on
from lightning_edit.evaluation.questions import LOCALITY, RELIABILITY, Question, locality_prompts
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.requests import EditRequest, normalise


class Examiner:
    """Questions about the edits so far and about the latest batch, and the memory that makes forgetting visible.

    Args:
        evaluator: Chooses what is asked, and says how.
        batch_budget: Edits of a batch that are asked about right after it; all where None.
        teacher_forced: Whether the edits' prompts are also scored teacher-forced.
        by_confidence: Whether shares are also given by the unedited model's confidence in the old answers.
        template: How that confidence is asked for, see `measure_confidence`.

    Attributes:
        baseline: The unedited model's answers to locality probes; None before `begin`.
        confidence: The unedited model's confidence in old answers, by id.
        held: Whether an edit's prompt was answered right just after its own commit, by id.
        remark: What a person should know about the last answers, see `remark_on_going_on`.
    """

    remark: str | None = None

    def __init__(
        self,
        evaluator: Evaluator,
        batch_budget: int | None = 10,
        teacher_forced: bool = False,
        by_confidence: bool = False,
        template: str = "{}",
    ) -> None:
        if batch_budget is not None and batch_budget < 0:
            raise EditError(f"found batch_budget={batch_budget}, expected a number from 0 on, or None for all")
        if teacher_forced and (evaluator.decode == "teacher_forced" or evaluator.options.reasoning):
            raise EditError(
                "found teacher_forced=True with decode='teacher_forced' or a reasoning model, expected greedy answers "
                "without thoughts beside it; leave it out."
            )
        self.evaluator, self._latest = evaluator, copy.copy(evaluator)
        self._latest.budget = batch_budget  # the lowest ranks of a batch: those that stay in the sample longest
        self.teacher_forced = teacher_forced
        self.by_confidence, self.template = by_confidence, template
        self.baseline: Baseline | None = None
        self.confidence: dict[str, float] = {}
        self.held: dict[str, bool] = {}
        self._before: dict[str, str] = {}

    @property
    def options(self) -> AnswerOptions:
        """How the model is asked."""
        return self.evaluator.options

    # -- before edits ----------------------------------------------------------------------------------------------

    def probes(self, known: Sequence[EditRequest]) -> int:
        """How many locality probes `begin` will ask.

        Args:
            known: Every request that is known, in order.
        """
        return len(locality_prompts(self.evaluator.draw_ever(known)))

    def begin(self, lm: LanguageModel, known: Sequence[EditRequest]) -> None:
        """Ask what only the unedited model can answer, or what has been added to it since.

        Args:
            lm: The language model.
            known: Every request that is known, in order.
        """
        self.baseline = self.evaluator.measure_baseline(lm, known, self.baseline)
        if self.by_confidence:
            new = [one for one in self.evaluator.draw_ever(known) if one.id not in self.confidence]
            self.confidence |= measure_confidence(lm, new, self.template, self.options)
            if known and not self.confidence:
                raise EditError(
                    f"found no `old` answer in {len(known)} requests, expected some for by_confidence=True; leave it "
                    "out, or give requests that name the old answer."
                )

    def look(self, lm: LanguageModel, everything: Sequence[EditRequest], batch: Sequence[EditRequest]) -> None:
        """Write down the answers to the batch's locality probes just before it is applied.

        Args:
            lm: The language model.
            everything: All requests, the batch's among them: what they change is no locality probe.
            batch: The requests that are about to be applied.
        """
        changed = {normalise(text) for item in everything for text in (item.prompt, *item.paraphrases)}
        prompts = locality_prompts(self.evaluator.draw(batch))
        self._before = say(lm, [prompt for prompt in prompts if normalise(prompt) not in changed], self.options)

    # -- after edits -----------------------------------------------------------------------------------------------

    def base_rates(self, lm: LanguageModel, known: Sequence[EditRequest]) -> dict[str, float]:
        """What the unedited model scores on the edits to come.

        Args:
            lm: The unedited model.
            known: Every request that is known.
        """
        return self._shares(lm, self.evaluator.draw(known), ())[0]

    def examine(
        self,
        lm: LanguageModel,
        handed_over: Sequence[EditRequest] | None,
        active: Sequence[EditRequest],
        batch: Sequence[EditRequest] = (),
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Ask about everything so far and about the latest batch, each prompt once.

        Args:
            lm: The language model.
            handed_over: Everything so far, in order, also what was replaced since; None to ask about the batch only.
            active: What the model should answer now.
            batch: The requests that were just applied.

        Returns:
            Shares over everything so far, and over the batch.
        """
        at_work = {request.id for request in active}
        drawn = [one for one in self.evaluator.draw(handed_over or ()) if one.id in at_work]
        latest = [one for one in self._latest.draw(batch) if one.id in at_work]
        found, outcomes = self._shares(lm, drawn, active, latest)
        self.remark = remark_on_going_on(outcomes)
        own = {one.id for one in latest}
        just_now = [one for one in outcomes if one.question.request in own and one.question.dimension != LOCALITY]
        fresh = {one.question.request: one.right for one in just_now if one.question.dimension == RELIABILITY}
        self.held |= fresh
        retained = [right for name, right in self._reliable(outcomes, drawn) if self.held.get(name) and name not in own]
        if retained:
            found["retention"] = sum(retained) / len(retained)
        found |= self._commit_locality(lm)
        in_batch = {f"batch_{name}": value for name, value in shares(just_now).items() if name != "judge_agreement"}
        return found, in_batch

    def _shares(
        self,
        lm: LanguageModel,
        drawn: Sequence[EditRequest],
        active: Sequence[EditRequest],
        latest: Sequence[EditRequest] = (),
    ) -> tuple[dict[str, float], list[Outcome]]:
        """Shares over the drawn requests, and all outcomes; of the latest ones locality is not asked."""
        names, mine = {one.id for one in drawn}, self.evaluator
        added = [dataclasses.replace(one, locality={}) for one in latest if one.id not in names]
        asked = [*drawn, *added]
        outcomes = ask(lm, asked, self.baseline, mine.decode, self.options, active or asked, mine.judge)
        own = [outcome for outcome in outcomes if outcome.question.request in names]
        found = shares(own, mine.by_kind)
        if self.by_confidence:
            found |= shares_by_confidence(own, self.confidence)
        if self.teacher_forced and drawn:
            bare = [dataclasses.replace(one, locality={}) for one in drawn]
            forced = shares(ask(lm, bare, None, "teacher_forced", self.options, active or asked))
            found |= {f"{name}_teacher_forced": value for name, value in forced.items()}
        return found, outcomes

    def _reliable(self, outcomes: Sequence[Outcome], drawn: Sequence[EditRequest]) -> list[tuple[str, bool]]:
        """Whether each drawn request's prompt is answered right."""
        names = {one.id for one in drawn}
        asked = [(one.question, one.right) for one in outcomes if one.question.dimension == RELIABILITY]
        return [(question.request, right) for question, right in asked if question.request in names]

    def _commit_locality(self, lm: LanguageModel) -> dict[str, float]:
        """Share of answers that are still those of just before the commit, where these were written down."""
        before, self._before = self._before, {}
        if not before:
            return {}
        questions = [Question("", LOCALITY, prompt, (said,)) for prompt, said in before.items()]
        outcomes = answer_greedy(lm, questions, self.options, self.evaluator.judge)
        return {"commit_locality": sum(one.right for one in outcomes) / len(outcomes)}

    # -- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Plain containers: all that cannot be asked again."""
        return {
            "baseline": None if self.baseline is None else self.baseline.state_dict(),
            "confidence": dict(self.confidence),
            "template": self.template,
            "held": dict(self.held),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved memory.

        Args:
            state: What `state_dict` gave.
        """
        if state["confidence"] and state["template"] != self.template:
            raise StateError(
                f"the checkpoint's confidences were asked for with {state['template']!r}, this run has "
                f"{self.template!r}; expected the same template."
            )
        self.confidence, self.held = dict(state["confidence"]), dict(state["held"])
        if state["baseline"] is not None:
            self.baseline = Baseline(self.options)
            self.baseline.load_state_dict(state["baseline"])
            self.baseline.check(self.options)
