"""What a model knows of events, in numbers: by event, by question, by kind of question, and when it should not know.

Counts verdicts. Refuses to know which events were asked about and how (`events_arena.py`).
"""

from collections.abc import Sequence

from lightning_edit.data.event import ABSTENTION, STATED
from lightning_edit.evaluation import Outcome, event_shares, shares
from lightning_edit.evaluation.questions import GENERALIZATION, LOCALITY, PORTABILITY, RELIABILITY
from lightning_edit.judge import exact_match
from lightning_edit.requests import EditRequest, normalise

HELD_OUT = (GENERALIZATION, PORTABILITY)
CHANGED = (RELIABILITY, *HELD_OUT)


def score_events(outcomes: Sequence[Outcome], requests: Sequence[EditRequest]) -> dict[str, float]:
    """Everything that the answers to some events' questions say; a number without questions is left out.

    Where triples or statements were taught, the events' own questions are all held out, those of kind `stated` among
    them. Then these alone are counted, and `reliability` says whether the triples arrived.

    - `event_accuracy`, `question_accuracy`: over all questions about what events change.
    - `stated_event_accuracy`: events of which every question is right whose answer the event states or an edit teaches.
    - `held_out_accuracy`: questions that no editor was taught, in other words or about what follows.
    - `abstention`: questions that events open and leave open, answered `unknown`; `false_abstention`: the others
      answered so.
    - `average`: mean of `question_accuracy` and `locality`, as *Revisiting*, Tables 35 and 36, has it.
    - `question_accuracy/known`, `question_accuracy/new`: where some events are about what the model knew before (an
      edit has an `old` answer) and some are not.
    - the four dimensions, and `portability/<kind>`, `locality/<kind>`.

    Args:
        outcomes: What came of the questions.
        requests: The edits of the events that were asked about.
    """
    own = (PORTABILITY,) if any(one.question.kind == STATED for one in outcomes) else CHANGED
    changed = [one for one in outcomes if one.question.dimension in own]
    found = {**shares(outcomes, by_kind=True), **event_shares(changed, requests)}
    stated = [one for one in changed if _is_stated(one)]
    if stated:
        found["stated_event_accuracy"] = event_shares(stated, requests)["event_accuracy"]
    parts = {
        "held_out_accuracy": [one.right for one in changed if one.question.dimension in HELD_OUT],
        "abstention": [one.right for one in changed if _is_open(one)],
        "false_abstention": [_abstains(one) for one in changed if not _is_open(one) and one.answer is not None],
    }
    familiar = {request.id: request.old is not None for request in requests}
    if len(set(familiar.values())) > 1:
        parts["question_accuracy/known"] = [one.right for one in changed if familiar[one.question.request]]
        parts["question_accuracy/new"] = [one.right for one in changed if not familiar[one.question.request]]
    found |= {name: sum(verdicts) / len(verdicts) for name, verdicts in parts.items() if verdicts}
    if {"question_accuracy", LOCALITY} <= found.keys():
        found["average"] = (found["question_accuracy"] + found[LOCALITY]) / 2
    return found


def _is_open(outcome: Outcome) -> bool:
    """Whether the event leaves the question open."""
    return any(normalise(name) == ABSTENTION for name in outcome.question.accepted)


def _is_stated(outcome: Outcome) -> bool:
    """Whether the event itself gives the answer; an edit that teaches `unknown` states nothing."""
    question = outcome.question
    if question.dimension == PORTABILITY:
        return question.kind == STATED
    return question.dimension in (RELIABILITY, GENERALIZATION) and not _is_open(outcome)


def _abstains(outcome: Outcome) -> bool:
    return outcome.answer is not None and exact_match(outcome.answer, ABSTENTION)
