"""Where the answer stands in what a model wrote.

A base language model does not stop after its answer: a full stop follows, and then another sentence. So the answer is
the text up to the end of the first sentence or line. The end of a sentence is `.`, `!`, `?` or `…` before white space
or the end of the text, unless the full stop belongs to the word: `St. Petersburg`, `Dr. X`, `J. R. R. Tolkien`, `3.5`,
`No. 10`, `Jan. 5`, `Acme Inc. of Ohio`. Where both readings are possible a name is assumed, as names are what edits are
about.

A prompt that ends in `Thoughts:` lets the model think first; its answer is what follows `Answer:`. A reasoning model
thinks whatever it is asked, and its answer is what follows `</think>`: as long as it thinks it has said nothing.

This file reads text. It knows no model, no tokens, and not what the right answer would be.
"""

import re
from collections.abc import Collection, Iterator
from typing import Literal

from lightning_edit.errors import EditError

Until = Literal["sentence", "line", "end"]
"""Where an answer ends: with its first sentence, with its first line, or not before the model is done."""
END_OF_THINKING = "</think>"
"""What stands between the thoughts and the answer of a reasoning model."""
THOUGHTS = "Thoughts:"
"""A prompt that ends so asks for the steps before the answer."""
ANSWER = "Answer:"
"""What stands before the answer behind the steps."""

_END = re.compile(r"""[。！？]|[.!?…]+["'”’»)\]]*(?=\s|$)""")  # noqa: RUF001
_WORD = re.compile(r"[\w.&'-]*$")
_INITIALS = re.compile(r"(?:\w\.)+\w")
_TITLES = re.compile(
    r"dr|mr|mrs|ms|mme|mlle|prof|ste?|mt|ft|gen|col|lt|sgt|cpl|capt|cmdr|adm|maj|rev|hon|gov|sen|rep|vs|cf|e\.g|i\.e"
)
_NUMBERED = re.compile("nos?|nr|vol|op|pp?|ch|fig|sec|art|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec")
_SUFFIXES = re.compile(r"jr|sr|inc|ltd|co|corp|bros|llc|plc|etc|al|ave|blvd|dept|approx|ca")
_OPENERS = re.compile(
    "The|An?|Its?|He|His|She|Her|They|Their|That|This|These|There|We|Our|You|I|My|In|On|At|As|By|For|From|Of|To|"
    "When|While|After|Before|And|But|Or|So|If|Also|However|Question|Answer|Context"
)


def first_sentence(text: str, count: int = 1) -> str:
    r"""Cut a continuation down to its answer.

    Leading white space, blank lines included, is skipped. A closing full stop is dropped.

    Args:
        text: What the model wrote.
        count: Number of sentences to keep; more than one where the right answer itself reads like several.

    Example:
        >>> first_sentence(" St. Petersburg. It lies on the Neva.")
        'St. Petersburg'
        >>> first_sentence("3.5 km long. That is far."), first_sentence("Dr. X!"), first_sentence("Rome\nParis. Yes")
        ('3.5 km long', 'Dr. X', 'Rome')
    """
    line = first_line(text)
    ends = list(_sentence_ends(line))[:count]
    return line[: ends[-1].start()].strip() if len(ends) == count else line


def first_line(text: str) -> str:
    """The first line that has something on it, without white space around.

    Args:
        text: What the model wrote.
    """
    return text.strip().partition("\n")[0].strip()


def sentence_count(text: str) -> int:
    """How many sentences `first_sentence` has to keep in order to keep all of an answer.

    Args:
        text: A right answer, on one line.

    Example:
        >>> sentence_count("Paris"), sentence_count("St. Petersburg."), sentence_count("Yahoo! Inc")
        (1, 1, 2)
    """
    line = first_line(text)
    return 1 + sum(1 for end in _sentence_ends(line) if line[end.end() :].strip())


def read_answer(prompt: str, text: str, count: int = 1, until: Until = "sentence", reasoning: bool = False) -> str:
    """The answer in what a model wrote behind a prompt.

    Args:
        prompt: What it was given; decides whether thoughts come first.
        text: What it wrote.
        count: Number of sentences to keep, where sentences end the answer.
        until: Where the answer ends.
        reasoning: Whether a reasoning model wrote it; thoughts without an end are no answer.

    Example:
        >>> read_answer("Where does Ann live? Thoughts:", "Ann works in Lyon. Answer: Lyon. Next", 1)
        'Lyon'
        >>> read_answer("Where?", "Paris? No.</think> Lyon.", reasoning=True)
        'Lyon'
    """
    said, _ = _said(prompt, text, reasoning)
    if until == "sentence":
        return first_sentence(said, count)
    return first_line(said) if until == "line" else said.strip()


def is_settled(prompt: str, text: str, count: int = 1, until: Until = "sentence", reasoning: bool = False) -> bool:
    """Whether the answer can no longer change, whatever the model writes next.

    Args:
        prompt: What the model was given.
        text: What it has written so far.
        count: Number of sentences to keep, where sentences end the answer.
        until: Where the answer ends.
        reasoning: Whether a reasoning model writes it.
    """
    said, begun = _said(prompt, text, reasoning)
    if not begun or until == "end":
        return False
    said = said.lstrip()
    if "\n" in said:
        return True
    known = said.rstrip("\ufffd")  # a character of which some bytes are still to come
    ends = list(_sentence_ends(known))[:count]
    if until == "line" or len(ends) < count:
        return False
    rest = known[ends[-1].end() :].lstrip()
    whole_word = len(rest.split(maxsplit=1)) > 1 or rest != rest.rstrip()
    return whole_word or (bool(rest) and not _is_initial(_word_before(known, ends[-1])))


def wants_thoughts(prompt: str) -> bool:
    """Whether a prompt asks for the steps before the answer.

    Args:
        prompt: What the model is given.
    """
    return prompt.rstrip().endswith(THOUGHTS)


def check_thoughts_end(special_tokens: Collection[str]) -> None:
    """Refuse a tokenizer that would drop the end of thoughts from the text: all of it would look like thoughts.

    Args:
        special_tokens: The tokens that are left out when text is decoded.
    """
    if END_OF_THINKING in special_tokens:
        raise EditError(
            f"{END_OF_THINKING} is a special token of this tokenizer and would be dropped from the text; expected an "
            "ordinary one. Add it anew with special=False."
        )


def _said(prompt: str, text: str, reasoning: bool) -> tuple[str, bool]:
    """The text without the thoughts before it, and whether the answer has begun.

    A reasoning model that is cut in its thoughts has said nothing; a prompt that asks for thoughts may be answered
    without any.
    """
    if reasoning:
        _, mark, text = text.partition(END_OF_THINKING)
        if not mark:
            return "", False
    if not wants_thoughts(prompt):
        return text, True
    _, mark, answer = text.partition(ANSWER)
    return (answer, True) if mark else (text, False)


def _sentence_ends(line: str) -> Iterator[re.Match[str]]:
    for end in _END.finditer(line):
        if end[0][0] != "." or not _belongs(_word_before(line, end), line[end.end() :].split(maxsplit=1)[:1]):
            yield end


def _word_before(line: str, end: re.Match[str]) -> str:
    word = _WORD.search(line[: end.start()])
    return word[0] if word else ""


def _belongs(word: str, following: list[str]) -> bool:
    """Whether the full stop behind `word` is part of it, seen the word that follows, if any."""
    if not following:
        return False
    name, follows = word.casefold().strip("'-&"), following[0]
    if _TITLES.fullmatch(name):
        return True
    if _NUMBERED.fullmatch(name) and (follows[0].isdigit() or not _is_initial(word)):  # `P. 10`, and `P. D. James`
        return follows[0].isdigit()
    if _SUFFIXES.fullmatch(name):
        return follows[0].islower()
    if _is_initial(word):
        return follows[0].islower() or (follows[0].isupper() and not _OPENERS.fullmatch(follows.strip(".,:;'\"")))
    return False


def _is_initial(word: str) -> bool:
    """`J`, `J.R`, `D.C`, `p.m`: the following word decides, so all of it must be known."""
    return (len(word) == 1 and word.isupper()) or bool(_INITIALS.fullmatch(word))
