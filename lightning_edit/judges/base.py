"""What is judged, and what judges have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lightning_edit.errors import EditError


@dataclass(frozen=True, slots=True)
class Case:
    """An answer to be judged.

    Args:
        prompt: What the model was asked.
        answer: What it said.
        accepted: Right answers; any of them will do.
        readings: For each accepted answer, what the model said when cut to as many sentences as that has; the answer
            itself for all of them where this is empty.
        log_probs: Candidate answers to their log-probabilities behind the prompt, for judges that compare them.
    """

    prompt: str
    answer: str
    accepted: tuple[str, ...]
    readings: tuple[str, ...] = ()
    log_probs: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.readings and len(self.readings) != len(self.accepted):
            raise EditError(
                f"found {len(self.readings)} readings of an answer beside {len(self.accepted)} accepted ones, expected "
                "one for each, or none."
            )

    def pairs(self) -> list[tuple[str, str]]:
        """What was said beside each accepted answer."""
        said = self.readings or (self.answer,) * len(self.accepted)
        return list(zip(said, self.accepted, strict=True))


class Judge(Protocol):
    """Gives verdicts.

    Attributes:
        name: What protocols and reports call it.
    """

    @property
    def name(self) -> str:
        """What protocols and reports call it."""

    def judge(self, cases: Sequence[Case]) -> list[bool]:
        """For each case, whether its answer is right.

        Args:
            cases: The answers.
        """
