"""Event-level accuracy of a model: an event counts when every question about it is answered right."""

from collections.abc import Callable, Collection, Mapping, Sequence

from lightning_edit.errors import RequestError
from lightning_edit.evaluation.answering import Outcome
from lightning_edit.evaluation.questions import GENERALIZATION, PORTABILITY, RELIABILITY
from lightning_edit.metrics.events import event_accuracy

ABOUT_THE_EVENT = (RELIABILITY, GENERALIZATION, PORTABILITY)
"""What an event changes; locality is what it should not."""


def event_shares(
    outcomes: Sequence[Outcome],
    event_of: Mapping[str, str] | Callable[[str], str],
    dimensions: Collection[str] = ABOUT_THE_EVENT,
) -> dict[str, float]:
    """Share of events of which every question is answered right, and the share of questions beside it.

    Keys: `event_accuracy` and `question_accuracy`; none if nothing was asked.

    Args:
        outcomes: What came of the questions, from `ask`.
        event_of: From the id of a request to the event it belongs to.
        dimensions: The dimensions that are counted.
    """
    asked = [outcome for outcome in outcomes if outcome.question.dimension in dimensions]
    if not asked:
        return {}
    right = [outcome.right for outcome in asked]
    events = [_event(event_of, outcome.question.request) for outcome in asked]
    return {"event_accuracy": event_accuracy(right, events).item(), "question_accuracy": sum(right) / len(right)}


def _event(event_of: Mapping[str, str] | Callable[[str], str], request: str) -> str:
    if callable(event_of):
        return event_of(request)
    if request not in event_of:
        raise RequestError(f"request '{request}' belongs to no event, expected one of each request; add it.")
    return event_of[request]
