"""Right answers that go on, which the exact judge counts as wrong.

A base model does not stop behind an answer: `English, and she grew up in Paris` begins with what was wanted. Whether
that is right, the judge decides; this file finds such answers and says so, so that nobody takes them for lost edits.
"""

from collections.abc import Sequence

from lightning_edit.evaluation.answering import Outcome
from lightning_edit.evaluation.questions import RELIABILITY
from lightning_edit.judges.base import Case
from lightning_edit.judges.wording import Begins

WORTH_SAYING = 0.05
"""Share of the edited prompts from which on it is said."""


def going_on(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Answers to edited prompts that begin with the target and were judged wrong, in their order.

    Args:
        outcomes: What came of the questions; those that another judge than the exact one judged are left alone.
    """
    wrong = [
        one
        for one in outcomes
        if one.question.dimension == RELIABILITY and not one.right and one.answer and one.exact is None
    ]
    begun = Begins().judge([Case(one.question.prompt, one.answer or "", one.question.accepted) for one in wrong])
    return [one for one, begins in zip(wrong, begun, strict=True) if begins]


def remark_on_going_on(outcomes: Sequence[Outcome]) -> str | None:
    """A sentence for a person where many answers go on; None where they do not.

    Args:
        outcomes: What came of the questions.
    """
    asked = sum(one.question.dimension == RELIABILITY for one in outcomes)
    found = going_on(outcomes)
    if len(found) < max(1, WORTH_SAYING * asked):
        return None
    first = found[0]
    return (
        f"{len(found)} of {asked} answers to edited prompts begin with the target, go on, and count as wrong, such as "
        f'"{first.answer}" for "{first.question.accepted[0]}". Models that do not stop behind an answer are better '
        'judged by "begins" (judge=begins), see docs/judges.md.'
    )
