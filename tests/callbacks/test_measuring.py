"""When edits are measured: the published numbers of edits, whatever the size of commits."""

from collections.abc import Iterator

import pytest

from lightning_edit.callbacks import EditMonitor
from lightning_edit.callbacks.measuring import PAPER_COUNTS, MeasuringPlan
from lightning_edit.errors import StrategyError


def measured(plan: MeasuringPlan, edits: int, size: int) -> Iterator[int]:
    """The numbers of edits after which a stream in commits of one size is measured."""
    for before in range(0, edits, size):
        after = min(before + size, edits)
        if plan.next_commit(before, after, last=after == edits):
            yield after


@pytest.mark.parametrize(
    ("size", "counts"),
    [
        (1, [1, 10, 20, 50, 100, 200, 500, 1000, 1200]),
        (10, [10, 20, 50, 100, 200, 500, 1000, 1200]),  # 1 is reached by the first ten
        (75, [75, 150, 225, 525, 1050, 1200]),
        (1200, [1200]),
    ],
)
def test_a_published_number_is_measured_by_the_commit_that_reaches_it(size: int, counts: list[int]) -> None:
    assert list(measured(MeasuringPlan(None, PAPER_COUNTS), 1200, size)) == counts


def test_the_published_numbers_have_a_name() -> None:
    monitor = EditMonitor(every_n_commits=None, at_counts="paper")
    assert tuple(monitor.plan.at_counts) == PAPER_COUNTS == (1, 10, 20, 50, 100, 200, 500, 1000, "all")
    assert list(measured(monitor.plan, 30, 10)) == [10, 20, 30]
    with pytest.raises(StrategyError, match="found 'p' in at_counts"):
        EditMonitor(at_counts="people")  # type: ignore[arg-type]


def test_a_resumed_plan_measures_all_once() -> None:
    plan, resumed = MeasuringPlan(None, ["all"]), MeasuringPlan(None, ["all"])
    assert plan.next_commit(0, 5, last=True)
    resumed.load_state_dict(plan.state_dict())
    assert not resumed.next_commit(5, 6, last=True)
    assert not resumed.training_ends()
