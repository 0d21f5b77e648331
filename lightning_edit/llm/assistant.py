"""What a language model has to be able to do in order to be asked for help."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

END_OF_THINKING = "</think>"


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Args:
        text: What the model wrote; None where nothing came.
        fault: Why nothing came.
    """

    text: str | None
    fault: str | None = None


class Assistant(Protocol):
    """A language model that takes prompts and writes replies.

    Attributes:
        name: What reports call it.
        identity: All that decides what it replies: model, place, settings. Part of the key of every cached reply.
    """

    @property
    def name(self) -> str:
        """What reports call it."""

    @property
    def identity(self) -> str:
        """All that decides what it replies."""

    def ask(self, prompts: Sequence[str]) -> Generator[tuple[int, Reply], None, None]:
        """Replies as they arrive, each with the number of its prompt; one for every prompt.

        Args:
            prompts: What the user says, one conversation each.
        """


def without_thoughts(text: str) -> str:
    """The reply of a reasoning model without its thoughts, and without white space around.

    Args:
        text: What the model wrote.

    Example:
        >>> without_thoughts("<think>Is it? Yes.</think> A ")
        'A'
    """
    return text.rpartition(END_OF_THINKING)[2].strip()
