r"""Which answer stands in what a model wrote, and whether it is the right one.

Formulas are read and compared by `math-verify`. What needs no algebra is settled before: the same text is right, and of
two plain numbers equality decides. That is quick, and does not depend on time limits. This file reads text; it knows no
task.
"""

import re
import threading
from collections.abc import Sequence

SECONDS = 30
"""Time for reading one formula, and for comparing two; on a busy machine the library's own 5 seconds are too few."""

_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
_QUANTITY = re.compile(_NUMBER.pattern + r"(?:/\d+)?")
_HASHES = re.compile(r"(?<!#)####(?!#)([^\n]*)")
_BOLD = re.compile(r"\*\*|\\?\$|\\[()]")
_HEADING = re.compile(r"[.):]\s*[^\s\d]")
_UNITS = re.compile(r"\.?$|\\?%|[\s,;(]+[^\W\d_][^=]*$")
# `A` and `I` as words of a sentence; behind a letter that is a choice a reason may follow, or another choice
_WORDS = r"[AI]\s+(?!(?:because|since|as|for|and|or|but|which|is|due|based|given|with|in)\b)[a-z]"
_LETTER_MARKS = (
    re.compile(
        r"(?i:answer\s*(?:is\s*:?|:)[\s*$\\]*(?:(?:option|choice)\s)?)[\s*$\\]*(?:boxed\{)?(?:\\text\{)?[\s*(]*"
        rf"(?!{_WORDS})([A-Z])\b(?![a-z'])"
    ),
    re.compile(r"\\boxed\{\s*(?:\\text\{)?\s*\(?([A-Z])\)?\s*\}"),
    re.compile(r"\A[\s*(]*([A-Z])(?:[).:,]|\s*\Z|\s*\n)"),
    re.compile(r"\(([A-Z])\)"),
)


def is_right(text: str, gold: str, tolerance: float = 0.0) -> bool:
    r"""Whether the final answer of a solution is the right one.

    The final answer is the one that `final` finds; else what `math-verify` takes it to be.

    Args:
        text: What the model wrote.
        gold: The right answer, in LaTeX or as a number.
        tolerance: How far a number may be off.

    Example:
        >>> is_right(r"Half of 3 is \boxed{1.5}.", r"\frac{3}{2}"), is_right("8 - 5 = 3\n#### 3", "4")
        (True, False)
    """
    said = final(text)
    if said is not None:
        if _bare(said) == _bare(gold):
            return True
        left, right = number(said), number(gold)
        if left is not None and right is not None:
            return abs(left - right) <= max(tolerance, 1e-9 * abs(right))
    elif _bare(text) == _bare(gold):
        return True
    return _verified(text if said is None else f"\\boxed{{{said}}}", gold)


def final(text: str) -> str | None:
    r"""The answer that a text marks as its last word: the last `\boxed{...}` or number behind `####`.

    Of the two kinds of marks the one that stands last counts. `####` is a heading of Markdown, too: it marks an answer
    only where a number follows on its line, and not where that number counts headings (`#### 2. Check`). Bold, dollar
    signs, and words behind the number, such as units, are left out.

    Args:
        text: What the model wrote.

    Example:
        >>> final(r"so \boxed{\frac{1}{2}}. Check."), final("It is 3."), final("2 + 1 = 3\n#### **3** apples")
        ('\\frac{1}{2}', None, '3')
        >>> final(r"so \boxed{5}" + "\n\n#### Note\nchecked")
        '5'
    """
    lines = [(mark.start(), _numbered(mark[1])) for mark in _HASHES.finditer(text)]
    marked = [(place, said) for place, said in [*lines, _boxed(text)] if said is not None]
    return max(marked)[1] if marked else None


def number(text: str) -> float | None:
    """The number that a text is, if it is one and nothing else.

    Args:
        text: An answer.

    Example:
        >>> number("$1,450"), number("-3."), number("3 apples")
        (1450.0, -3.0, None)
    """
    found = _NUMBER.fullmatch(text.strip().strip("$").strip().rstrip("."))
    return None if found is None else float(found[0].replace(",", ""))


def letter(text: str, count: int) -> str | None:
    """The letter of the choice that a text comes to; the last one where it names several.

    Args:
        text: What the model wrote.
        count: Number of choices.

    Example:
        >>> letter("(A) is tempting, but the answer is (C).", 4), letter("B", 4), letter("A tree grows.", 4)
        ('C', 'B', None)
    """
    known = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:count]
    for mark in _LETTER_MARKS:
        found = [entry for entry in mark.findall(text) if entry in known]
        if found:
            return str(found[-1])
    return None


def label(text: str, labels: Sequence[str]) -> int | None:
    """Which of some words a text says first; None where it says none.

    Args:
        text: What the model wrote.
        labels: The words.

    Example:
        >>> label("Positive, I think, not negative.", ["negative", "positive"]), label("Well", ["no", "yes"])
        (1, None)
    """
    pattern = "|".join(re.escape(word) for word in labels)
    found = re.search(rf"\b(?:{pattern})\b", text, re.IGNORECASE)
    return None if found is None else [word.casefold() for word in labels].index(found[0].casefold())


def _verified(text: str, gold: str) -> bool:
    """What `math-verify` says; it can only stop what takes too long in the main thread."""
    from math_verify import parse, verify

    seconds = SECONDS if threading.current_thread() is threading.main_thread() else None
    said = parse(text, parsing_timeout=seconds)
    if not said:
        return False
    right = parse(f"\\boxed{{{gold}}}", parsing_timeout=seconds)
    return bool(verify(right, said, timeout_seconds=seconds))


def _bare(text: str) -> str:
    """A formula without what does not change it."""
    text = re.sub(r"\\(?:left|right|,|;|!|:|quad)(?![a-zA-Z])|\\(?:displaystyle|text\s*\{\s*\})", "", text)
    return re.sub(r"[\s$]", "", text.replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac")).rstrip(".")


def _numbered(line: str) -> str | None:
    """The answer on a line behind `####`; None where it is a heading. Without units, where nothing is calculated."""
    bare = _BOLD.sub("", line).strip(" \t\r*_€£")
    found = _QUANTITY.match(bare)
    if found is None or _HEADING.match(bare, found.end()):
        return None
    return found[0] if _UNITS.match(bare, found.end()) else bare


def _boxed(text: str) -> tuple[int, str | None]:
    """Where the last box stands, and what is in it; nothing where there is none, or none that is closed."""
    for name in (r"\boxed{", r"\framebox{", r"\fbox{"):
        start = text.rfind(name)
        if start >= 0:
            inside = _braced(text[start + len(name) :])
            if inside is not None:
                return start, inside.strip()
    return -1, None


def _braced(text: str) -> str | None:
    """What stands before the brace that closes; None where none does."""
    depth = 1
    for place, sign in enumerate(text):
        depth += (sign == "{") - (sign == "}")
        if depth == 0:
            return text[:place]
    return None
