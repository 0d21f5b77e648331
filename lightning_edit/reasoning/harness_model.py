"""The live model as lm-evaluation-harness wants to see one.

Texts go in, texts and log-probabilities come out, by this package's own decoder and scorer: an editor that acts while
the model answers, in a hook or before the prompt, is at work here as everywhere. Prompts are never cut. Importing this
file imports lm-eval; it knows no task.
"""

import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from lightning_edit.chat import Chat, render
from lightning_edit.decoding import decode
from lightning_edit.errors import EditError, RequestError
from lightning_edit.evaluation.likelihood import Likelihoods, score_continuations
from lightning_edit.evaluation.reading import END_OF_THINKING, check_thoughts_end
from lightning_edit.model.encoding import tokenize
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.progress import Progress, watched
from lightning_edit.reasoning.ranks import Ranks
from lightning_edit.reasoning.text_likelihood import score_texts

Question = TypeVar("Question")
Answer = TypeVar("Answer")
Settings = tuple[tuple[str, ...], int]
"""Stop strings and the number of new tokens."""

LEAST_ROOM = 32
"""Behind a prompt there must be room for so many new tokens, unless the task wants fewer."""
CHUNK = 4
"""Batches that are handed to the decoder at once; of more the tokens would fill the memory."""
NEW_TOKENS = 256
"""Longest answer where a task says nothing, as in lm-eval."""
THOUGHTS = 8192
"""Tokens for thoughts where nobody limits them: as many as the tasks that ask for steps allow."""


class HarnessModel(LM):
    """A `LanguageModel` as an `LM` of lm-eval.

    On several processes each gets all requests, answers its share, and has all answers afterwards; lm-eval believes
    that it is alone on each.

    Args:
        lm: The language model.
        batch_size: Texts in one forward.
        max_new_tokens: Longest answer where a task allows a longer one; None lets each task have its way. A model that
            thinks first gets as many again for its thoughts, or 8,192: a task's limit is that of an answer.
        chat: Ask through the tokenizer's chat template; a task's prompt is the user's turn.
        reasoning: Whether the model thinks first: its answer is then what follows `</think>`, and stop strings count
            only there. Thoughts without an end are no answer.
        ranks: The processes.

    Raises:
        EditError: It thinks first, and its tokenizer drops `</think>` from what it decodes.
    """

    def __init__(
        self,
        lm: LanguageModel,
        batch_size: int = 16,
        max_new_tokens: int | None = None,
        chat: Chat | None = None,
        reasoning: bool = False,
        ranks: Ranks | None = None,
    ) -> None:
        super().__init__()
        if reasoning:
            check_thoughts_end(lm.tokenizer.all_special_tokens)
        self.lm, self.batch_size, self.max_new_tokens = lm, batch_size, max_new_tokens
        self.chat, self.reasoning = chat, reasoning
        self.ranks = ranks or Ranks(alone=True)

    @property
    def tokenizer_name(self) -> str:
        """Name of the tokenizer."""
        return str(self.lm.tokenizer.name_or_path).replace("/", "__")

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Log-probability of each continuation behind its context, and whether greedy decoding would write it.

        The two are read as one text, see `score_continuations`; behind no context the continuation is a text of its
        own.

        Args:
            requests: Instances with arguments (context, continuation).
        """
        pairs = [(str(context), str(continuation)) for context, continuation in (request.args for request in requests)]
        groups: dict[bool | None, list[int]] = defaultdict(list)
        for index, (context, continuation) in enumerate(pairs):
            groups[continuation.startswith(" ") if context else None].append(index)
        answers: dict[int, tuple[float, bool]] = {}
        for spaced, members in groups.items():
            work = partial(self._score, joint=" " if spaced else "") if spaced is not None else self._score_alone
            scored = self._answer([pairs[index] for index in members], work, lambda pair: len(pair[0] + pair[1]))
            answers |= dict(zip(members, scored, strict=True))
        return [answers[index] for index in range(len(pairs))]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Log-probability of each text, see `score_texts`.

        Args:
            requests: Instances with arguments (text,).
        """
        texts = [str(request.args[0]) for request in requests]

        def score(part: Sequence[str]) -> list[float]:
            found: list[float] = score_texts(self.lm, part, batch_size=self.batch_size).sum.tolist()
            return found

        return self._answer(texts, score, len)

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """What the model writes behind each context, greedily, up to a stop string.

        Args:
            requests: Instances with arguments (context, generation settings); of the settings `until` and
                `max_gen_toks` count, and sampling is refused.

        Raises:
            EditError: A task wants to sample.
            RequestError: A prompt is longer than the model's context, or leaves no room for an answer.
        """
        answers: dict[int, str] = {}
        groups: dict[Settings, list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            groups[self._settings(request.args[1])].append(index)
        for (until, limit), members in groups.items():
            prompts = [str(requests[index].args[0]) for index in members]
            self._check_room(prompts, limit)
            written = self._answer(prompts, self._writer(until, limit), len)
            answers |= dict(zip(members, written, strict=True))
        return [answers[index] for index in range(len(requests))]

    # -- how it is done --------------------------------------------------------------------------------------------

    def _score(self, pairs: Sequence[tuple[str, str]], joint: str) -> list[tuple[float, bool]]:
        """Continuations behind contexts."""
        contexts, tails = [context for context, _ in pairs], [tail.removeprefix(joint) for _, tail in pairs]
        return _sums(score_continuations(self.lm, contexts, tails, self.batch_size, chat=self.chat, joint=joint))

    def _score_alone(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """Continuations of nothing."""
        return _sums(score_texts(self.lm, [text for _, text in pairs], batch_size=self.batch_size))

    def _writer(self, until: tuple[str, ...], limit: int) -> Callable[[Sequence[str]], list[str]]:
        """Writes behind prompts and cuts at the first stop string."""

        def stop(prompt: str, text: str) -> bool:
            said = self._said(text)
            return said is not None and any(mark in said for mark in until)

        def write(prompts: Sequence[str]) -> list[str]:
            texts = decode(self.lm, prompts, limit, self.batch_size, stop, self.chat)
            return [_cut(self._said(text) or "", until) for text in texts]

        return write

    def _said(self, text: str) -> str | None:
        """The text without thoughts; None where they have no end yet."""
        if not self.reasoning:
            return text
        _, mark, said = text.partition(END_OF_THINKING)
        return said.lstrip() if mark else None  # a line break behind the thoughts ends no answer

    def _settings(self, wanted: dict[str, Any]) -> Settings:
        """Stop strings and length, as far as they are greedy."""
        if wanted.get("do_sample") or ((wanted.get("temperature") or 0) > 0 and "do_sample" not in wanted):
            raise EditError(
                f"found generation settings {wanted}, which sample; expected do_sample: false, because answers are "
                "decoded greedily here. Set it in the task."
            )
        until = wanted.get("until") or []
        marks = (until,) if isinstance(until, str) else tuple(until)
        limit = int(wanted.get("max_gen_toks") or NEW_TOKENS)
        if self.max_new_tokens is not None:
            limit = min(limit, self.max_new_tokens)
        return marks, limit + (self.max_new_tokens or THOUGHTS if self.reasoning else 0)

    def _check_room(self, prompts: Sequence[str], limit: int) -> None:
        """Refuse prompts that do not fit, and say so where the answer has less room than it was allowed."""
        texts = list(prompts) if self.chat is None else render(self.lm.tokenizer, prompts, self.chat)
        lengths = [len(ids) for ids, _ in tokenize(self.lm.tokenizer, texts, special=self.chat is None)]
        context, least = self.lm.max_length, min(limit, LEAST_ROOM)
        longest = max(range(len(lengths)), key=lengths.__getitem__)
        if lengths[longest] + least > context:
            many = sum(length + least > context for length in lengths)
            raise RequestError(
                f"found {lengths[longest]} tokens in {prompts[longest][:80]!r}, and {many} of {len(prompts)} prompts "
                f"that are too long; expected at most {context - least}: the model's context is {context}, and at "
                f"least {least} are for the answer. Take fewer shots, or a model with a longer context."
            )
        short = sum(length + limit > context for length in lengths)
        if short and self.ranks.rank == 0:
            warnings.warn(
                f"{short} of {len(prompts)} prompts leave room for fewer than {limit} new tokens in a context of "
                f"{context}: answers that would be longer are cut. Lower max_new_tokens to make it the same for all.",
                stacklevel=2,
            )

    def _answer(
        self,
        questions: Sequence[Question],
        work: Callable[[Sequence[Question]], list[Answer]],
        size: Callable[[Question], int],
    ) -> list[Answer]:
        """Answers in order: questions of like size together, chunk by chunk, each process its share."""
        order = sorted(range(len(questions)), key=lambda index: size(questions[index]), reverse=True)

        def share(part: Sequence[Question]) -> list[Answer]:
            answers: list[Answer] = []
            whole = self.lm.progress  # of all questions; a chunk's own would begin again and again
            whole.more(len(part))
            for start in range(0, len(part), CHUNK * self.batch_size):
                chunk = part[start : start + CHUNK * self.batch_size]
                with watched(self.lm, Progress()):
                    answers += work(chunk)
                whole.done(len(chunk))
            return answers

        found = self.ranks.share([questions[index] for index in order], share)
        place = {index: rank for rank, index in enumerate(order)}
        return [found[place[index]] for index in range(len(questions))]


def _sums(found: Likelihoods) -> list[tuple[float, bool]]:
    """Log-probability of each text, and whether greedy decoding would write it."""
    return list(zip(found.sum.tolist(), found.exact.tolist(), strict=True))


def _cut(text: str, until: Sequence[str]) -> str:
    """The text up to the first stop string."""
    return text[: min((text.find(mark) for mark in until if mark in text), default=len(text))].strip()
