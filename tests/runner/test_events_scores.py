"""Scores of events: an oracle has all, a shuffled one nothing, and any answers what a count by hand gives."""

import random
from typing import Any

import pytest

from lightning_edit.evaluation import Outcome, Question
from lightning_edit.jobs.events_scores import score_events
from lightning_edit.requests import EditRequest
from tests.reference_events import event_scores

PARTS = [
    ("reliability", None),
    ("generalization", None),
    ("portability", "stated"),
    ("portability", "inferred"),
    ("portability", "unknown"),
    ("locality", "unaffected"),
]
REQUESTS = [EditRequest(f"{event}-{index}", "p", "t", group=event) for event in "abcde" for index in range(2)]


def outcomes(says: Any) -> tuple[list[Outcome], list[dict[str, Any]]]:
    """Every part asked about every request; `says` maps what is right to an answer."""
    made, plain = [], []
    for request in REQUESTS:
        for place, (dimension, kind) in enumerate(PARTS):
            right = "unknown" if kind == "unknown" or (request.id == "e-0" and place < 2) else f"answer {place}"
            answer = says(right)
            question = Question(request.id, dimension, f"{request.id} {place}?", (right,), kind)
            made.append(Outcome(question, answer == right, answer))
            plain.append({"event": request.group, "dimension": dimension, "kind": kind, "answer": answer})
            plain[-1] |= {"accepted": [right], "right": answer == right}
    return made, plain


def pairs(outcomes: list[Outcome], plain: list[dict[str, Any]]) -> tuple[list[Outcome], list[dict[str, Any]]]:
    """The same without the questions of kind `stated`, as where pairs were taught."""
    kept = [one.question.kind != "stated" for one in outcomes]
    return [one for one, keep in zip(outcomes, kept, strict=True) if keep], [
        one for one, keep in zip(plain, kept, strict=True) if keep
    ]


@pytest.mark.parametrize("triples", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_any_answers_score_as_counted_by_hand(seed: int, triples: bool) -> None:
    rng = random.Random(seed)
    made, plain = outcomes(lambda right: rng.choices((right, "unknown", "else"), (0.9, 0.07, 0.03))[0])
    if not triples:
        made, plain = pairs(made, plain)
    scores = score_events(made, REQUESTS)
    expected = event_scores(plain, triples)
    assert {key: scores[key] for key in expected} == pytest.approx(expected)
    assert scores["event_accuracy"] <= scores["question_accuracy"]


def test_an_oracle_has_everything_and_abstains_from_nothing_it_knows() -> None:
    scores = score_events(outcomes(lambda right: right)[0], REQUESTS)
    assert scores.pop("false_abstention") == 0.0
    assert set(scores.values()) == {1.0}
    assert {"reliability", "locality/unaffected", "portability/inferred", "abstention"} <= scores.keys()


def test_who_always_says_unknown_is_right_where_events_leave_it_open() -> None:
    scores = score_events(outcomes(lambda right: "Unknown.")[0], REQUESTS)
    assert scores["abstention"] == 0.0  # verdicts are the judge's, and this one wants the very word
    assert scores["false_abstention"] == 1.0
    scores = score_events(outcomes(lambda right: "unknown")[0], REQUESTS)
    assert (scores["abstention"], scores["false_abstention"], scores["event_accuracy"]) == (1.0, 1.0, 0.0)


def test_teacher_forced_answers_say_nothing_about_abstaining_wrongly() -> None:
    made = [Outcome(one.question, one.right, None) for one in outcomes(lambda right: right)[0]]
    assert "false_abstention" not in score_events(made, REQUESTS)


def test_what_was_not_asked_has_no_number() -> None:
    only = [one for one in outcomes(lambda right: right)[0] if one.question.dimension == "reliability"][:2]
    assert set(score_events(only, REQUESTS)) == {
        "reliability",
        "event_accuracy",
        "question_accuracy",
        "stated_event_accuracy",
        "false_abstention",
    }
