"""Decode once, judge, count: what edits are worth and what they cost."""

from lightning_edit.evaluation.answering import AnswerOptions, Outcome, is_right, say
from lightning_edit.evaluation.baseline import Baseline, measure_baseline
from lightning_edit.evaluation.counterfact import evaluate_counterfact
from lightning_edit.evaluation.evaluator import Evaluator
from lightning_edit.evaluation.events import event_shares
from lightning_edit.evaluation.likelihood import Likelihoods, log_likelihoods, score_continuations
from lightning_edit.evaluation.passages import WritingTask, evaluate_passages, read_writing_tasks, write_passages
from lightning_edit.evaluation.protocol import Protocol, Scores
from lightning_edit.evaluation.quality import ask, evaluate, shares
from lightning_edit.evaluation.questions import Question, make_questions
from lightning_edit.evaluation.reading import first_sentence, read_answer
from lightning_edit.evaluation.scoring import TargetScores, target_probabilities
from lightning_edit.evaluation.token_accuracy import evaluate_token_accuracy
from lightning_edit.evaluation.token_locality import TokenBaseline, evaluate_token_locality, measure_token_baseline

__all__ = [
    "AnswerOptions",
    "Baseline",
    "Evaluator",
    "Likelihoods",
    "Outcome",
    "Protocol",
    "Question",
    "Scores",
    "TargetScores",
    "TokenBaseline",
    "WritingTask",
    "ask",
    "evaluate",
    "evaluate_counterfact",
    "evaluate_passages",
    "evaluate_token_accuracy",
    "evaluate_token_locality",
    "event_shares",
    "first_sentence",
    "is_right",
    "log_likelihoods",
    "make_questions",
    "measure_baseline",
    "measure_token_baseline",
    "read_answer",
    "read_writing_tasks",
    "say",
    "score_continuations",
    "shares",
    "target_probabilities",
    "write_passages",
]
