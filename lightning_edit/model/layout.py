"""How a prompt and what follows it become a model's inputs.

A decoder-only model reads both as one text, in which the answer follows the prompt. An encoder-decoder reads the prompt
in its encoder and says the answer in its decoder, whose inputs are the answer shifted by one place. Whoever teaches,
scores or asks a model goes through its `Layout` and need not know which of the two it is. This file has the face of a
layout and that of decoder-only models; `seq2seq.py` has the other. It knows tokens; it moves nothing in a model.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import Tensor

if TYPE_CHECKING:
    from lightning_edit.model.language_model import LanguageModel

IGNORED = -100  # the label that no loss is computed for
Rows = Sequence[Sequence[int]]
Side = Literal["left", "right"]


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt and what should follow it, as tokens.

    Args:
        prompt: Tokens of the prompt.
        answer: Tokens of the answer.
        leading: How many of the prompt's first tokens are special ones that the tokenizer puts before a text.
    """

    prompt: list[int]
    answer: list[int]
    leading: int = 0


@dataclass(frozen=True, slots=True)
class Feed:
    """Arguments of a forward pass in which true answers are given.

    Args:
        inputs: Keyword arguments of the model.
        starts: For each row, the position whose logits are those of the answer's first token.
    """

    inputs: dict[str, Tensor]
    starts: list[int]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model predicts where answers stand.

    Args:
        logits: Logits (b, w, v).
        labels: The token that follows at each of these positions (b, w).
        places: For each row, the positions of its answer.
    """

    logits: Tensor
    labels: Tensor
    places: list[slice]


class Writing(ABC):
    """Prompts that a model is writing behind, on one cache."""

    @abstractmethod
    def logits(self) -> Tensor:
        """Logits of the next token (b, v)."""

    @abstractmethod
    def keep(self, rows: Tensor) -> None:
        """Go on with some rows, in this order.

        Args:
            rows: Their indices.
        """

    @abstractmethod
    def write(self, tokens: Tensor) -> None:
        """Write one token behind each row.

        Args:
            tokens: The tokens (b,).
        """


class Layout(ABC):
    """How one kind of model is given prompts and answers. It holds nothing.

    Attributes:
        separate: Whether prompts and answers are read by stacks of their own.
        task: What PEFT calls the model's task.
    """

    separate: ClassVar[bool]
    task: ClassVar[str]

    # -- tokens ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def read_prompts(self, lm: "LanguageModel", texts: Sequence[str], special: bool = True) -> list[list[int]]:
        """Tokens of each prompt as the model is asked it.

        Args:
            lm: The language model.
            texts: The prompts.
            special: Whether the tokenizer's special tokens are put around it.
        """

    @abstractmethod
    def split(
        self, lm: "LanguageModel", heads: Sequence[str], tails: Sequence[str], joint: str = " ", special: bool = True
    ) -> list[Pair]:
        """Prompts with their answers; a token that crosses the border counts to the answer.

        Args:
            lm: The language model.
            heads: The prompts.
            tails: Their answers.
            joint: What stands between the two, where they are one text.
            special: As for `read_prompts`.
        """

    def split_as_asked(
        self, lm: "LanguageModel", heads: Sequence[str], tails: Sequence[str], joint: str = " ", special: bool = True
    ) -> list[Pair]:
        """Prompts with their answers; the prompt's tokens are those that the model is asked.

        Args:
            lm: The language model.
            heads: The prompts.
            tails: Their answers.
            joint: What stands between the two, where they are one text.
            special: As for `read_prompts`.
        """
        return self.split(lm, heads, tails, joint, special)

    @abstractmethod
    def closing(self, lm: "LanguageModel") -> list[int]:
        """Tokens behind an answer that belong to it while it is learned.

        Args:
            lm: The language model.
        """

    @abstractmethod
    def size(self, pair: Pair) -> int:
        """Positions of the model's context that a prompt and its answer take.

        Args:
            pair: The two.
        """

    @abstractmethod
    def room(self, lm: "LanguageModel", prompt: int) -> int:
        """Tokens that can be written behind a prompt.

        Args:
            lm: The language model.
            prompt: Number of its tokens.
        """

    @abstractmethod
    def last_of_prompt(self, lm: "LanguageModel", layer: int, prompt: int) -> int:
        """Position of the last token that stands for a prompt in a block, in rows filled up on the right.

        Args:
            lm: The language model.
            layer: The block.
            prompt: Number of the prompt's tokens.
        """

    # -- forward passes --------------------------------------------------------------------------------------------

    @abstractmethod
    def feed(self, lm: "LanguageModel", prompts: Rows, answers: Rows) -> Feed:
        """Arguments of a forward pass over prompts with given answers, filled up on the right.

        Args:
            lm: The language model.
            prompts: Tokens of each prompt.
            answers: Tokens of each answer, as far as they are given.
        """

    @abstractmethod
    def predict(self, lm: "LanguageModel", pairs: Sequence[Pair], padding: Side = "left") -> Prediction:
        """Run the borrowed model over prompts with their true answers.

        Args:
            lm: The language model.
            pairs: The prompts and answers.
            padding: The side that shorter prompts are filled up on, where there is a choice.
        """

    @abstractmethod
    def begin(self, lm: "LanguageModel", prompts: Rows) -> Writing:
        """Begin to write behind prompts, with the borrowed model.

        Args:
            lm: The language model.
            prompts: Their tokens.
        """

    # -- whole texts -----------------------------------------------------------------------------------------------

    @abstractmethod
    def text_inputs(self, lm: "LanguageModel", batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Arguments of a forward pass that reads texts, masks of real tokens among them.

        Args:
            lm: The language model.
            batch: `input_ids`, `attention_mask` and, where answers belong to the texts, `labels`.
        """

    @abstractmethod
    def training_inputs(self, lm: "LanguageModel", batch: Mapping[str, Tensor]) -> dict[str, Any]:
        """Arguments of a forward pass with a loss.

        Args:
            lm: The language model.
            batch: `input_ids`, and where they are known `attention_mask` and `labels`.
        """

    @abstractmethod
    def training_rows(self, lm: "LanguageModel", rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rows of text as rows that this kind of model trains on.

        Args:
            lm: The language model.
            rows: `input_ids`, `attention_mask` and `labels` of next-token prediction (m, t).
        """

    # -- transformers' own generation ------------------------------------------------------------------------------

    @abstractmethod
    def new_tokens(self, output: Tensor, width: int) -> Tensor:
        """What was written, of what transformers' `generate` gives (b, new tokens).

        Args:
            output: What it gave.
            width: Tokens of the prompts it was given.
        """

    def generation_settings(self, lm: "LanguageModel") -> dict[str, Any]:
        """Settings of `generate` that this kind of model needs.

        Args:
            lm: The language model.
        """
        return {}
