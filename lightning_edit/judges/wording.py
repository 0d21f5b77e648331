"""Judges that read: the same words, the right words first, or the right words among others."""

import re
from collections.abc import Sequence

from lightning_edit.judge import exact_match, normalise_answer
from lightning_edit.judges.base import Case


class ExactMatch:
    """Right is what says the same as one of the accepted answers: `judge.exact_match`, the default everywhere.

    Example:
        >>> ExactMatch().judge([Case("Where?", "the USA.", ("America", "USA")), Case("Where?", "in Rome", ("Rome",))])
        [True, False]
    """

    name = "exact_match"

    def judge(self, cases: Sequence[Case]) -> list[bool]:
        """For each case, whether what was said equals an accepted answer.

        Args:
            cases: The answers.
        """
        return [any(exact_match(said, name) for said, name in case.pairs()) for case in cases]


class Contains:
    """Right is what has one of the accepted answers in it, as whole words.

    It forgives a sentence around the answer, and everything else that is said in it: a denial (`not Rome`), a list of
    guesses, an alias that is a common word (`it` for Italian). Where answers are short it flatters.

    Example:
        >>> Contains().judge([Case("Where?", "She lives in Rome.", ("Rome",)), Case("Where?", "Romeo", ("Rome",))])
        [True, False]
    """

    name = "contains"

    def judge(self, cases: Sequence[Case]) -> list[bool]:
        """For each case, whether what was said contains an accepted answer.

        Args:
            cases: The answers.
        """
        return [any(_contains(said, name) for said, name in case.pairs()) for case in cases]


class Begins:
    """Right is what begins with one of the accepted answers, as whole words, after an article at most.

    For models that do not stop behind an answer, as base models do not. It forgives what follows: `Rome, or Milan` is
    right, and so is `Paris, Texas` where `Paris` is wanted.

    Example:
        >>> Begins().judge([Case("Where?", "Rome, and she likes it", ("Rome",)), Case("Where?", "in Rome", ("Rome",))])
        [True, False]
    """

    name = "begins"

    def judge(self, cases: Sequence[Case]) -> list[bool]:
        """For each case, whether what was said begins with an accepted answer.

        Args:
            cases: The answers.
        """
        return [any(_contains(said, name, at_start=True) for said, name in case.pairs()) for case in cases]


def _contains(answer: str, name: str, at_start: bool = False) -> bool:
    """Whether the normalised name stands in the normalised answer, or at its start."""
    said, wanted = normalise_answer(answer), normalise_answer(name)
    if not wanted:
        return not said
    before = r"(?<!\w)" if _ends_word(wanted[0]) else ""
    after = r"(?!\w)" if _ends_word(wanted[-1]) else ""
    pattern = re.compile(before + re.escape(wanted) + after)
    return (pattern.match(said) if at_start else pattern.search(said)) is not None


def _ends_word(character: str) -> bool:
    """Whether words in this character's script are set apart: digits, and letters that come in two cases."""
    return character.isdigit() or character.upper() != character.lower()
