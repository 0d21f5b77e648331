"""What came of a task: one number that stands for it, and all the others."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TaskScore:
    """The numbers of one task.

    Args:
        score: The number that stands for the task; a share in 0..1, or a perplexity.
        metric: What it is called: `acc`, `perplexity`, ...
        count: Questions that were asked.
        metrics: All metrics by name, that one among them.
        protocol: How the questions were put: in a chat or bare, with thoughts or without.
    """

    score: float
    metric: str
    count: int
    metrics: dict[str, float] = field(default_factory=dict)
    protocol: str = ""
