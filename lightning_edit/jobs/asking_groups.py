"""Groups of several sizes as one run: what `Asking` asks of a sequence at its end is asked of groups here.

Splits by confidence and failure modes come from the answers of all groups; what needs an edited model is asked while it
carries a group. Knows no recipe; how a group is played stands in `protocols.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lightning_edit.editors.editor import Editor
from lightning_edit.errors import EditError
from lightning_edit.evaluation import Baseline, Evaluator, Outcome
from lightning_edit.jobs.asking import Asking, Untouched, forced_shares
from lightning_edit.jobs.protocols import evaluate_in_groups
from lightning_edit.jobs.stage import add_to_curves
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.requests import EditRequest
from lightning_edit.runner.results import RunResult


def check_groups(sizes: Sequence[int], count: int, of_a_sequence: Mapping[str, object]) -> None:
    """Refuse groups that cannot be played, and options that mean nothing beside them.

    Args:
        sizes: Sizes of groups.
        count: Number of requests.
        of_a_sequence: Options that only one sequence has an answer to, as they were given; empty ones were not.

    Raises:
        EditError: A size that is no number of requests from 1 to all, or such an option.
    """
    if min(sizes) < 1 or max(sizes) > count:
        raise EditError(f"found groups of {list(sizes)} out of {count} requests; expected sizes from 1 to {count}.")
    given = [f"{name}={value!r}" for name, value in of_a_sequence.items() if value]
    if given:
        raise EditError(
            f"found {', '.join(given)} beside groups={list(sizes)}: these belong to one sequence, and groups end on "
            "the clean weights. Leave them out (null), or play one sequence without groups."
        )


def play_in_groups(
    editor: Editor,
    lm: LanguageModel,
    stream: Sequence[EditRequest],
    asking: Asking,
    evaluator: Evaluator,
    baseline: Baseline,
    before: Untouched,
    folder: Path,
    tick: Callable[[], object] = lambda: None,
) -> RunResult:
    """Groups of several sizes as one result: the row of the largest, and curves over the size.

    Args:
        editor: A prepared editor with no edits at work.
        lm: The clean model.
        stream: The requests.
        asking: What is asked, with the sizes of groups.
        evaluator: What is asked about each group.
        baseline: What the clean model answered.
        before: What else is known of it.
        folder: Where files of the run go.
        tick: Called after each group.
    """
    result = RunResult("")
    for size in sorted(set(asking.groups or [])):
        looked = _Looks(asking, lm, editor, evaluator, before)
        found = evaluate_in_groups(editor, lm, stream, size, 1, evaluator, baseline, tick, looked.look)
        one, place = RunResult(""), folder.with_name(f"{folder.name}-groups-{size}")
        further = looked.row() | asking.split(one, lm, found.outcomes, stream, before, place)
        result.row = {**found.row(), **further}
        result.notes += [note for note in found.notes if note not in result.notes]
        result.tables += one.tables
        result.files |= {f"{name}, groups of {size}": path for name, path in one.files.items()}
        add_to_curves(result, size, {"count": float(size), **found.scores, **further})
    return result


class _Looks:
    """What is asked of a model while it carries a group, over all groups of one size."""

    def __init__(
        self, asking: Asking, lm: LanguageModel, editor: Editor, evaluator: Evaluator, before: Untouched
    ) -> None:
        self._asking, self._lm, self._editor, self._evaluator = asking, lm, editor, evaluator
        self._before = before
        self._forced: list[Outcome] = []
        self._costs: dict[str, float] = {}

    def look(self, group: Sequence[EditRequest]) -> None:
        """Measure.

        Args:
            group: The edits at work.
        """
        self._forced += self._asking.forced(self._lm, group, self._evaluator)
        if self._asking.latency and not self._costs:
            self._costs = self._asking.costs(self._lm, self._editor, self._before)

    def row(self) -> dict[str, float]:
        """Shares over the questions of all groups; costs are the first group's."""
        return {**forced_shares(self._forced), **self._costs}
