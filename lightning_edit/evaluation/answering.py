"""How questions are answered and judged: every distinct prompt once, then a verdict for every question.

`greedy` lets the model write and reads its answer: what a user would see. `teacher_forced` only asks whether each token
of the right answer is the likeliest behind the true ones before it: about ten times cheaper, and flattering. This file
knows no requests and no shares.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lightning_edit.decoding import decode
from lightning_edit.errors import EditError
from lightning_edit.evaluation.questions import Question
from lightning_edit.evaluation.reading import is_settled, read_answer, sentence_count, wants_thoughts
from lightning_edit.evaluation.scoring import target_probabilities
from lightning_edit.judge import exact_match
from lightning_edit.model.language_model import LanguageModel

Decoding = Literal["greedy", "teacher_forced"]


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """How long the model may write, and how many rows at once.

    Args:
        max_new_tokens: Longest answer in tokens; what does not end by then is read as it is.
        thought_tokens: Longest text behind a prompt that asks for the steps before the answer.
        batch_size: Prompts in one forward.
    """

    max_new_tokens: int = 24
    thought_tokens: int = 96
    batch_size: int = 64


@dataclass(frozen=True, slots=True)
class Outcome:
    """A question with what came of it.

    Args:
        question: What was asked.
        right: The verdict.
        answer: What the model said; None where it was not let speak.
    """

    question: Question
    right: bool
    answer: str | None


def write_behind(lm: LanguageModel, sentences: Mapping[str, int], options: AnswerOptions) -> dict[str, str]:
    """What the model writes behind each prompt, at least until its answer is complete.

    Args:
        lm: The language model.
        sentences: Each prompt with the number of sentences its answer may have.
        options: Lengths and batch size.
    """

    def stop(prompt: str, text: str) -> bool:
        return is_settled(prompt, text, sentences[prompt])

    written: dict[str, str] = {}
    for thoughtful, limit in ((False, options.max_new_tokens), (True, options.thought_tokens)):
        prompts = [prompt for prompt in sentences if wants_thoughts(prompt) == thoughtful]
        written.update(zip(prompts, decode(lm, prompts, limit, options.batch_size, stop), strict=True))
    return written


def say(lm: LanguageModel, prompts: Iterable[str], options: AnswerOptions) -> dict[str, str]:
    """The model's answer to each prompt: one sentence.

    Args:
        lm: The language model.
        prompts: What it is asked.
        options: Lengths and batch size.
    """
    written = write_behind(lm, dict.fromkeys(prompts, 1), options)
    return {prompt: read_answer(prompt, text) for prompt, text in written.items()}


def is_right(prompt: str, text: str, accepted: Iterable[str]) -> bool:
    """Whether the answer in a text is one of the accepted ones.

    An accepted answer that reads like several sentences (`Yahoo! Inc`) is compared with as many.

    Args:
        prompt: What was asked.
        text: What the model wrote.
        accepted: Right answers.

    Example:
        >>> is_right("Ann lives in", " St. Petersburg. She likes it.", ["Leningrad", "St. Petersburg"])
        True
        >>> is_right("Ann works for", " Yahoo! Inc. It is well.", ["Yahoo! Inc"])
        True
    """
    return any(exact_match(read_answer(prompt, text, sentence_count(name)), name) for name in accepted)


def answer_greedy(lm: LanguageModel, questions: Sequence[Question], options: AnswerOptions) -> list[Outcome]:
    """Let the model write behind every distinct prompt once, and judge what it says.

    Args:
        lm: The language model.
        questions: What is asked.
        options: Lengths and batch size.
    """
    sentences: dict[str, int] = {}
    for question in questions:
        needed = max(map(sentence_count, question.accepted), default=1)
        sentences[question.prompt] = max(needed, sentences.get(question.prompt, 1))
    written = write_behind(lm, sentences, options)
    outcomes = []
    for question in questions:
        text = written[question.prompt]
        answer = read_answer(question.prompt, text, max(map(sentence_count, question.accepted), default=1))
        outcomes.append(Outcome(question, is_right(question.prompt, text, question.accepted), answer))
    return outcomes


def answer_teacher_forced(lm: LanguageModel, questions: Sequence[Question], options: AnswerOptions) -> list[Outcome]:
    """Ask whether each token of an accepted answer is the likeliest behind the true ones before it.

    Left out are prompts that ask for thoughts, as the right thoughts are not known, and answers without any text.

    Args:
        lm: The language model.
        questions: What is asked.
        options: Batch size.
    """
    asked = [one for one in questions if not wants_thoughts(one.prompt) and any(one.accepted)]
    pairs = list(dict.fromkeys((one.prompt, name) for one in asked for name in one.accepted if name))
    prompts, targets = [prompt for prompt, _ in pairs], [name for _, name in pairs]
    top = target_probabilities(lm, prompts, targets, options.batch_size).top.tolist()
    verdicts = dict(zip(pairs, top, strict=True))
    return [Outcome(one, any(verdicts.get((one.prompt, name), False) for name in one.accepted), None) for one in asked]


def answerer(decode: Decoding) -> Callable[[LanguageModel, Sequence[Question], AnswerOptions], list[Outcome]]:
    """The way of answering with a given name.

    Args:
        decode: `greedy` or `teacher_forced`.
    """
    ways = {"greedy": answer_greedy, "teacher_forced": answer_teacher_forced}
    if decode not in ways:
        raise EditError(f"found decode={decode!r}, expected one of {sorted(ways)}.")
    return ways[decode]
