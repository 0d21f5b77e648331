"""Event-level accuracy of a model: an event counts when every question about it is answered right."""

from collections.abc import Collection, Iterable, Sequence

from lightning_edit.errors import RequestError
from lightning_edit.evaluation.answering import Outcome
from lightning_edit.evaluation.questions import GENERALIZATION, PORTABILITY, RELIABILITY
from lightning_edit.metrics.events import event_accuracy
from lightning_edit.requests import EditRequest

ABOUT_THE_EVENT = (RELIABILITY, GENERALIZATION, PORTABILITY)
"""What an event changes; locality is what it should not."""


def event_shares(
    outcomes: Sequence[Outcome],
    requests: Iterable[EditRequest],
    dimensions: Collection[str] = ABOUT_THE_EVENT,
) -> dict[str, float]:
    """Share of events of which every question is answered right, and the share of questions beside it.

    Keys: `event_accuracy` and `question_accuracy`; none if nothing was asked. Requests of one `group` are one event; a
    request without is an event by itself.

    Args:
        outcomes: What came of the questions, from `ask`.
        requests: The requests that were asked about.
        dimensions: The dimensions that are counted.
    """
    event_of = {request.id: ("group", request.group) if request.group else ("id", request.id) for request in requests}
    asked = [outcome for outcome in outcomes if outcome.question.dimension in dimensions]
    if not asked:
        return {}
    strangers = [outcome.question.request for outcome in asked if outcome.question.request not in event_of]
    if strangers:
        raise RequestError(
            f"found an answer about '{strangers[0]}', which is none of the {len(event_of)} requests; expected the "
            "requests that were asked about. Pass the same ones."
        )
    right = [outcome.right for outcome in asked]
    events = [repr(event_of[outcome.question.request]) for outcome in asked]
    return {"event_accuracy": event_accuracy(right, events).item(), "question_accuracy": sum(right) / len(right)}
