"""Asking until a reply has the form that was asked for.

A reply is read by a strict parser. What the parser refuses is asked for once more, with a reminder of the form, because
a model at temperature 0 would only say the same again. Only replies that were understood are cached, at the moment they
arrive: an interrupted run starts again where it stopped.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Generic, TypeVar

from lightning_edit.errors import EditError
from lightning_edit.llm.assistant import Assistant
from lightning_edit.llm.cache import ReplyCache
from lightning_edit.progress import Progress

Value = TypeVar("Value")

_SHOWN = 120  # characters of a refused reply that a fault repeats


class Malformed(ValueError):
    """A reply is not in the form that was asked for; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Asked(Generic[Value]):
    """A prompt's parsed reply, or why there is none.

    Args:
        value: What the parser made of the reply.
        fault: Why there is no value; None where there is one.
        cached: Whether the reply was known before.
    """

    value: Value | None
    fault: str | None = None
    cached: bool = False


def ask_strictly(
    assistant: Assistant,
    prompts: Sequence[str],
    parse: Callable[[str], Value],
    purpose: str,
    reminder: str,
    cache: ReplyCache | None = None,
    attempts: int = 2,
    progress: Progress | None = None,
) -> list[Asked[Value]]:
    """Ask every distinct prompt, and read the replies strictly.

    Args:
        assistant: The language model.
        prompts: What it is asked.
        parse: Makes a value of a reply, or raises `Malformed`.
        purpose: What the replies are for; part of the key in the cache.
        reminder: Put behind a prompt whose reply was refused.
        cache: Where replies are kept.
        attempts: How often a prompt is asked before its reply counts as malformed.
        progress: Hears of prompts and replies.

    Returns:
        One result for each prompt, in their order.
    """
    if attempts < 1:
        raise EditError(f"found attempts={attempts}, expected at least 1")
    identity, heard = assistant.identity, progress or Progress()
    results = _known(cache, purpose, identity, prompts, parse)
    pending = [prompt for prompt in dict.fromkeys(prompts) if prompt not in results]
    for attempt in range(attempts):
        refused = []
        texts = [f"{prompt}\n\n{reminder}" for prompt in pending] if attempt else pending
        heard.more(len(texts))
        with closing(assistant.ask(texts)) as replies:
            for index, reply in replies:
                prompt = pending[index]
                heard.done()
                if reply.text is None:
                    results[prompt] = Asked(None, reply.fault or "no reply")
                    continue
                try:
                    results[prompt] = Asked(parse(reply.text))
                except Malformed as fault:
                    shown = repr(reply.text[:_SHOWN])
                    results[prompt] = Asked(None, f"malformed reply, {attempt + 1} times over: {fault}; found {shown}")
                    refused.append(prompt)
                else:
                    if cache is not None:
                        cache.put(purpose, identity, prompt, reply.text)
        pending = refused
    return [_result(results, prompt, assistant) for prompt in prompts]


def _known(
    cache: ReplyCache | None, purpose: str, identity: str, prompts: Sequence[str], parse: Callable[[str], Value]
) -> dict[str, Asked[Value]]:
    """What the cache knows; a reply that the parser no longer takes is asked for anew."""
    results: dict[str, Asked[Value]] = {}
    for prompt, text in cache.find(purpose, identity, prompts).items() if cache is not None else ():
        try:
            results[prompt] = Asked(parse(text), cached=True)
        except Malformed:
            continue
    return results


def _result(results: dict[str, Asked[Value]], prompt: str, assistant: Assistant) -> Asked[Value]:
    return results.get(prompt) or Asked(None, f"{assistant.name} gave no reply to this prompt")
