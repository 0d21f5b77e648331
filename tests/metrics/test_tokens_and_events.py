"""Token accuracy, token-level locality and event-level accuracy against loops over lists."""

import random

import pytest

from lightning_edit.errors import EditError
from lightning_edit.metrics import (
    EventAccuracy,
    TeacherForcedTokenAccuracy,
    TokenLocality,
    event_accuracy,
    teacher_forced_token_accuracy,
    token_match_ratio,
)
from tests import reference_metrics as reference


def test_token_accuracy_pools_the_tokens_of_a_record() -> None:
    draw = random.Random(1)
    records = [
        [[draw.random() < 0.6 for _ in range(draw.randint(1, 4))] for _ in range(draw.randint(1, 3))] for _ in range(8)
    ]
    right = [prompt for record in records for prompt in record]
    names = [f"r{i}" for i, record in enumerate(records) for _ in record]
    expected = reference.token_accuracy(records)
    assert teacher_forced_token_accuracy(right, names).item() == pytest.approx(expected, abs=1e-6)
    metric = TeacherForcedTokenAccuracy()
    metric.update(right[:3], names[:3])
    metric.update(right[3:], names[3:])
    assert metric.compute().item() == pytest.approx(expected, abs=1e-6)
    alone = reference.token_accuracy([[prompt] for prompt in right])
    assert teacher_forced_token_accuracy(right).item() == pytest.approx(alone, abs=1e-6)
    assert alone != pytest.approx(expected, abs=1e-3)


def test_token_accuracy_refuses_what_has_no_tokens() -> None:
    with pytest.raises(EditError, match="without target tokens"):
        teacher_forced_token_accuracy([[True], []])
    with pytest.raises(EditError, match="judge the answers first"):
        teacher_forced_token_accuracy([[0.5]])  # type: ignore[list-item]
    metric = TeacherForcedTokenAccuracy()
    metric.update([])
    assert metric.compute().isnan()


CONTINUATIONS = [
    ([1, 2, 3, 4], [1, 2, 3, 4]),
    ([1, 2, 3, 4], [1, 9, 3, 9]),
    ([1, 2, 3, 4], [2, 3, 4]),  # shifted by one: nothing stands where it stood
    ([1, 2], [1, 2, 3, 4]),  # goes on
    ([1, 2, 3, 4], []),
    ([], []),
]


def test_token_locality_counts_positions() -> None:
    before, after = ([pair[side] for pair in CONTINUATIONS] for side in (0, 1))
    ratios = [reference.match_ratio(first, second) for first, second in CONTINUATIONS]
    assert ratios == [1, 0.5, 0, 0.5, 0, 1]
    assert token_match_ratio(before, after).tolist() == ratios
    metric = TokenLocality()
    metric.update(before[:2], after[:2])
    metric.update(before[2:], after[2:])
    values = {name: value.item() for name, value in metric.compute().items()}
    assert values == {
        "token_locality/match_ratio": pytest.approx(sum(ratios) / 6),
        "token_locality/exact_match": pytest.approx(2 / 6),
    }
    with pytest.raises(EditError, match="6 continuations before and 2 after"):
        metric.update(before, after[:2])


def test_thirds_of_tokens_are_no_exact_match() -> None:
    metric = TokenLocality()
    metric.update([[7] * 3, [7] * 1000], [[7] * 3, [7] * 999 + [8]])
    values = metric.compute()
    assert values["token_locality/exact_match"].item() == 0.5
    assert values["token_locality/match_ratio"].item() == pytest.approx(0.9995)


def test_an_event_is_known_when_all_its_questions_are() -> None:
    draw = random.Random(2)
    events = [[draw.random() < 0.7 for _ in range(draw.randint(1, 4))] for _ in range(20)]
    answers = [(right, f"e{i}") for i, event in enumerate(events) for right in event]
    draw.shuffle(answers)  # an event's questions need not come together
    right, names = [one for one, _ in answers], [name for _, name in answers]
    expected = reference.event_accuracy(events)
    assert 0.2 < expected < 0.8
    assert event_accuracy(right, names).item() == pytest.approx(expected)
    metric = EventAccuracy()
    for start in range(0, len(right), 7):
        metric.update(right[start : start + 7], names[start : start + 7])
    assert metric.compute().item() == pytest.approx(expected)
    with pytest.raises(EditError, match="2 values and 1 records"):
        metric.update([True, True], ["e"])
