"""How questions are answered and judged: every distinct prompt once, then a verdict for every question.

`greedy` lets the model write and reads its answer: what a user would see. `teacher_forced` only asks whether each token
of the right answer is the likeliest behind the true ones before it: about ten times cheaper, and flattering. This file
knows no requests and no shares.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, get_args

from lightning_edit.chat import Chat
from lightning_edit.decoding import decode
from lightning_edit.errors import EditError
from lightning_edit.evaluation.likelihood import score_continuations
from lightning_edit.evaluation.questions import Question
from lightning_edit.evaluation.reading import (
    Until,
    check_thoughts_end,
    is_settled,
    read_answer,
    sentence_count,
    wants_thoughts,
)
from lightning_edit.judge import exact_match
from lightning_edit.judges.base import Case, Judge
from lightning_edit.judges.wording import ExactMatch
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.progress import Worker, lent

Decoding = Literal["greedy", "teacher_forced"]


@dataclass(frozen=True)  # without slots: jsonargparse reads a default's fields from its dictionary
class AnswerOptions:
    """How the model is asked, how long it may write, and how many rows at once.

    Args:
        max_new_tokens: Longest answer in tokens, a reasoning model's thoughts included; what does not end by then is
            read as it is.
        thought_tokens: Longest text behind a prompt that asks for the steps before the answer.
        batch_size: Prompts in one forward.
        until: Where an answer ends: with its first sentence (which `St. Petersburg` does not end), with its first line,
            or not before the model is done. The last is for judges that read a whole reply.
        chat: Ask through the tokenizer's chat template, as instruction-tuned models expect.
        system: What the system says first in a chat.
        reasoning: Whether the model thinks before it answers: the answer is then what follows `</think>`.
    """

    max_new_tokens: int = 24
    thought_tokens: int = 96
    batch_size: int = 64
    until: Until = "sentence"
    chat: bool = False
    system: str | None = None
    reasoning: bool = False

    def __post_init__(self) -> None:
        if self.until not in get_args(Until):
            raise EditError(f"found until={self.until!r}, expected one of {sorted(get_args(Until))}.")
        if self.system is not None and not self.chat:
            raise EditError("found a system turn without a chat, expected chat=True beside it; set it, or leave both.")

    @classmethod
    def for_instruct(cls, max_new_tokens: int = 50, **changes: Any) -> "AnswerOptions":
        """For instruction-tuned models: by chat template, with the 50 new tokens that *Revisiting* allows them.

        Args:
            max_new_tokens: Longest answer in tokens.
            changes: Other options.
        """
        return cls(**{"max_new_tokens": max_new_tokens, "chat": True, **changes})

    @classmethod
    def for_reasoning(cls, max_new_tokens: int = 1024, **changes: Any) -> "AnswerOptions":
        """For reasoning models: by chat template, 1024 new tokens as in *Revisiting*, those after the thoughts count.

        Args:
            max_new_tokens: Longest text in tokens, thoughts included.
            changes: Other options.
        """
        return cls(**{"max_new_tokens": max_new_tokens, "chat": True, "reasoning": True, **changes})

    @property
    def template(self) -> Chat | None:
        """The chat that prompts are rendered into; None for bare text."""
        return Chat(self.system, self.reasoning) if self.chat else None

    def wording(self) -> dict[str, Any]:
        """All that decides what an answer says, as plain values; how many rows run at once does not."""
        return {name: value for name, value in asdict(self).items() if name != "batch_size"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """A question with what came of it.

    Args:
        question: What was asked.
        right: The verdict.
        answer: What the model said; None where it was not let speak.
        exact: The exact judge's verdict, where another one judged beside it.
        text: All that the model wrote, its thoughts among it; None where it was not let speak.
    """

    question: Question
    right: bool
    answer: str | None
    exact: bool | None = None
    text: str | None = None


def write_behind(lm: LanguageModel, sentences: Mapping[str, int], options: AnswerOptions) -> dict[str, str]:
    """What the model writes behind each prompt, at least until its answer is complete.

    Args:
        lm: The language model.
        sentences: Each prompt with the number of sentences its answer may have.
        options: How to ask.
    """
    if options.reasoning:
        check_thoughts_end(lm.tokenizer.all_special_tokens)

    def stop(prompt: str, text: str) -> bool:
        return is_settled(prompt, text, sentences[prompt], options.until, options.reasoning)

    written: dict[str, str] = {}
    for thoughtful, limit in ((False, options.max_new_tokens), (True, options.thought_tokens)):
        prompts = [prompt for prompt in sentences if wants_thoughts(prompt) == thoughtful]
        texts = decode(lm, prompts, limit, options.batch_size, stop, options.template)
        written.update(zip(prompts, texts, strict=True))
    return written


def say(lm: LanguageModel, prompts: Iterable[str], options: AnswerOptions) -> dict[str, str]:
    """The model's answer to each prompt: one sentence, unless the options say otherwise.

    Args:
        lm: The language model.
        prompts: What it is asked.
        options: How to ask.
    """
    written = write_behind(lm, dict.fromkeys(prompts, 1), options)
    return {prompt: read_answer(prompt, text, 1, options.until, options.reasoning) for prompt, text in written.items()}


def is_right(prompt: str, text: str, accepted: Iterable[str], options: AnswerOptions | None = None) -> bool:
    """Whether the answer in a text is one of the accepted ones.

    An accepted answer that reads like several sentences (`Yahoo! Inc`) is compared with as many.

    Args:
        prompt: What was asked.
        text: What the model wrote.
        accepted: Right answers.
        options: How the model was asked; as a base model is, by default.

    Example:
        >>> is_right("Ann lives in", " St. Petersburg. She likes it.", ["Leningrad", "St. Petersburg"])
        True
        >>> is_right("Ann works for", " Yahoo! Inc. It is well.", ["Yahoo! Inc"])
        True
    """
    how = options or AnswerOptions()
    return any(
        exact_match(read_answer(prompt, text, sentence_count(name), how.until, how.reasoning), name)
        for name in accepted
    )


def answer_greedy(
    lm: LanguageModel, questions: Sequence[Question], options: AnswerOptions, judge: Judge | None = None
) -> list[Outcome]:
    """Let the model write behind every distinct prompt once, and judge what it says.

    Args:
        lm: The language model.
        questions: What is asked.
        options: How to ask.
        judge: Gives the verdicts; the exact judge by default, whose verdicts are kept beside another's.
    """
    sentences: dict[str, int] = {}
    for question in questions:
        needed = max(map(sentence_count, question.accepted), default=1)
        sentences[question.prompt] = max(needed, sentences.get(question.prompt, 1))
    written = write_behind(lm, sentences, options)
    cases = [_case(question, written[question.prompt], options) for question in questions]
    exact = ExactMatch().judge(cases)
    judged: list[bool | None] = [None] * len(cases) if judge is None else list(exact)
    verdicts = zip(questions, cases, _verdicts(lm, cases, exact, judge), judged, strict=True)
    return [Outcome(one, right, case.answer, same, written[one.prompt]) for one, case, right, same in verdicts]


def _verdicts(lm: LanguageModel, cases: Sequence[Case], exact: list[bool], judge: Judge | None) -> list[bool]:
    """What the judge says; one that takes long reports to whoever hears of the model."""
    if judge is None:
        return exact
    with lent(judge, lm.progress) if isinstance(judge, Worker) else nullcontext():
        return judge.judge(cases)


def _case(question: Question, text: str, options: AnswerOptions) -> Case:
    """An answer for a judge, cut for each accepted one to as many sentences as that reads like."""

    def read(count: int) -> str:
        return read_answer(question.prompt, text, count, options.until, options.reasoning)

    counts = [sentence_count(name) for name in question.accepted]
    return Case(question.prompt, read(max(counts, default=1)), question.accepted, tuple(map(read, counts)))


def answer_teacher_forced(lm: LanguageModel, questions: Sequence[Question], options: AnswerOptions) -> list[Outcome]:
    """Ask whether each token of an accepted answer is the likeliest behind the true ones before it.

    Left out are prompts that ask for thoughts, as the right thoughts are not known, and answers without any text.

    Args:
        lm: The language model.
        questions: What is asked.
        options: Batch size and chat template.
    """
    if options.reasoning:
        raise EditError(
            "found decode='teacher_forced' for a reasoning model, expected 'greedy': its answer follows thoughts of "
            "its own, and the true ones are not known."
        )
    asked = [one for one in questions if not wants_thoughts(one.prompt) and any(one.accepted)]
    pairs = list(dict.fromkeys((one.prompt, name) for one in asked for name in one.accepted if name))
    prompts, targets = [prompt for prompt, _ in pairs], [name for _, name in pairs]
    scores = score_continuations(lm, prompts, targets, options.batch_size, chat=options.template)
    verdicts = dict(zip(pairs, scores.exact.tolist(), strict=True))
    return [Outcome(one, any(verdicts.get((one.prompt, name), False) for name in one.accepted), None) for one in asked]


Answering = Callable[[LanguageModel, Sequence[Question], AnswerOptions], list[Outcome]]
"""From a model, questions and how to ask them to what came of them."""


def answerer(decode: Decoding, judge: Judge | None = None) -> Answering:
    """The way of answering with a given name.

    Args:
        decode: `greedy` or `teacher_forced`.
        judge: Gives the verdicts on what the model writes; the exact judge by default.
    """
    ways: dict[str, Answering] = {
        "greedy": partial(answer_greedy, judge=judge),
        "teacher_forced": answer_teacher_forced,
    }
    if decode not in ways:
        raise EditError(f"found decode={decode!r}, expected one of {sorted(ways)}.")
    if judge is not None and decode != "greedy":
        raise EditError(
            f"found the judge {judge.name!r} with decode={decode!r}, expected decode='greedy': a judge reads what the "
            "model writes. Leave the judge out, or decode."
        )
    return ways[decode]
