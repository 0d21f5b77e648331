"""When an answer counts as right: by its wording, by its likelihood, or by another model's verdict.

A judge takes cases and returns verdicts. It does not know where answers come from, and not what shares of verdicts are
called. `lightning_edit/judge.py` holds the comparison of two strings that the judges here are built on.
"""

from lightning_edit.judges.agreement import Agreement, agreement
from lightning_edit.judges.base import Case, Judge
from lightning_edit.judges.likelihood import LikelihoodComparison
from lightning_edit.judges.llm import LLMJudge
from lightning_edit.judges.wording import Begins, Contains, ExactMatch

__all__ = [
    "Agreement",
    "Begins",
    "Case",
    "Contains",
    "ExactMatch",
    "Judge",
    "LLMJudge",
    "LikelihoodComparison",
    "agreement",
]
