"""The place where a text memory stands between a prompt and the model.

An editor that answers out of texts changes no weight: it puts what it remembers before the prompt. Such an object
stands as `LanguageModel.memory`, and whatever asks the model through text goes past it: `decode`, `decode_tokens`,
`sample`, `generate` and the scoring of continuations. What reads activations or takes gradients feeds tokens to the
model itself and never meets a memory: keys, targets, statistics and geometry are those of the bare model.

This file knows the place, and no memory in particular.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol, cast

from lightning_edit.chat import Chat

if TYPE_CHECKING:
    from lightning_edit.model.language_model import LanguageModel


class PromptMemory(Protocol):
    """What may stand as `LanguageModel.memory`."""

    def rewrite(self, lm: "LanguageModel", prompts: Sequence[str], chat: Chat | None) -> list[str]:
        """The texts that the model is given instead of some prompts.

        The memory may ask the model for this: meanwhile the model has no memory.

        Args:
            lm: The language model.
            prompts: Different prompts, as the user wrote them.
            chat: How they will be put through the chat template, which happens to what is returned; None for bare text.

        Returns:
            A text for each prompt, in order; the prompt itself where nothing is to be said to it.
        """


class MemoryPlace:
    """The place itself, a part of `LanguageModel` and of nothing else.

    Attributes:
        memory: What an editor that answers out of texts has put between prompts and the model.
    """

    memory: PromptMemory | None = None

    def recall(self, prompts: Sequence[str], chat: Chat | None = None) -> list[str]:
        """What the model is given instead of prompts: the prompts, with what a memory has to say to them.

        Equal prompts are looked up once. While the memory works it has the bare model.

        Args:
            prompts: The prompts.
            chat: How they will be put through the chat template, which happens afterwards.
        """
        memory = self.memory
        if memory is None:
            return list(prompts)
        distinct = list(dict.fromkeys(prompts))
        with self.without_memory():
            told = dict(zip(distinct, memory.rewrite(cast("LanguageModel", self), distinct, chat), strict=True))
        return [told[prompt] for prompt in prompts]

    @contextmanager
    def with_memory(self, memory: PromptMemory | None) -> Iterator[None]:
        """Let another memory stand before the model for a while.

        Args:
            memory: The memory; None for none.
        """
        before, self.memory = self.memory, memory
        try:
            yield
        finally:
            self.memory = before

    def without_memory(self) -> AbstractContextManager[None]:
        """Ask the bare model for a while, for those who must not see what a memory adds."""
        return self.with_memory(None)
