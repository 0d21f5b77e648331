"""Event-level accuracy: an event is known when all its questions are answered right."""

from collections.abc import Sequence

from torch import Tensor

from lightning_edit.metrics.functional import Verdicts, as_verdicts
from lightning_edit.metrics.records import RecordMetric, record_keys, share_of_whole_records


def event_accuracy(right: Verdicts, events: Sequence[str]) -> Tensor:
    r"""Share of events of which every question is answered right.

    $$\frac{1}{E} \sum_e \prod_{i \in e} 1[\text{answer}_i \text{ is right}]$$

    Args:
        right: For each question, whether its answer is right.
        events: The event that each question belongs to.

    Example:
        >>> event_accuracy([True, True, False], ["birth", "birth", "merger"])
        tensor(0.5000)
    """
    return share_of_whole_records(as_verdicts(right).flatten(), events)


class EventAccuracy(RecordMetric):
    """Share of events of which every question is answered right.

    Peng et al. (2024), *Event-level Knowledge Editing* (ELKEN), "event-level" as against "question-level" scores, which
    are shares of right answers. An event may be spread over several updates and processes.

    Args:
        kwargs: Arguments of every torchmetrics metric.

    Example:
        >>> metric = EventAccuracy()
        >>> metric.update([True, True, True], ["birth", "birth", "merger"])
        >>> metric.update([False], ["merger"])
        >>> metric.compute()
        tensor(0.5000)
    """

    higher_is_better = True
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    def update(self, right: Verdicts, events: Sequence[str]) -> None:
        """Add questions.

        Args:
            right: For each question, whether its answer is right.
            events: The event that each question belongs to.
        """
        verdicts = as_verdicts(right).flatten()
        self._keep(verdicts, record_keys(events, len(verdicts)))

    def compute(self) -> Tensor:
        """Share of events without a wrong answer; nan if nothing was seen."""
        return (self._means() == 1).double().mean().float()
