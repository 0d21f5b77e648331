"""Decode once, judge, count: what edits are worth and what they cost."""

from lightning_edit.evaluation.answering import AnswerOptions, Outcome, is_right, say
from lightning_edit.evaluation.baseline import Baseline, measure_baseline
from lightning_edit.evaluation.evaluator import Evaluator
from lightning_edit.evaluation.quality import ask, evaluate, shares
from lightning_edit.evaluation.questions import Question, make_questions
from lightning_edit.evaluation.reading import first_sentence, read_answer
from lightning_edit.evaluation.scoring import TargetScores, target_probabilities

__all__ = [
    "AnswerOptions",
    "Baseline",
    "Evaluator",
    "Outcome",
    "Question",
    "TargetScores",
    "ask",
    "evaluate",
    "first_sentence",
    "is_right",
    "make_questions",
    "measure_baseline",
    "read_answer",
    "say",
    "shares",
    "target_probabilities",
]
