"""Text as words, for the metrics that count them.

Two ways, because the published numbers rest on two. `words` splits like the Penn Treebank, as NLTK's `word_tokenize`
does, which is what fluency was published with; `terms` takes lower-case runs of two characters or more, scikit-learn's
default, which is what consistency was published with.
"""

import re

_APART = re.compile(r"\.{3}|--|[;@#$%&?!()\[\]{}<>\"“”«»]|[,:](?!\d)|(?<=[^\s'])'(?=[\s\"”)\],.;:?!]|$)")
_CLITICS = re.compile(r"(?<=\w)(n't|'(?:s|m|d|ll|re|ve))(?=[^\w-]|$)", re.IGNORECASE)
_CANNOT = re.compile(r"\b(can)(not)\b", re.IGNORECASE)
_LAST = re.compile(r"([^\s.]+(?:\.[^\s.]+)*)\.(?=[\"'”’)\]]*(?:\s+[^a-z\s]|\s*$))")  # noqa: RUF001
_ABBREVIATED = re.compile(r"(?:\w\.)*[A-Z]|(?:mrs?|dr|st|prof|gen|col|sgt|capt|lt|rev|no|vs|jr|sr)", re.IGNORECASE)
_TERM = re.compile(r"\b\w\w+\b")


def words(text: str) -> list[str]:
    """Words and punctuation marks, close to NLTK's `word_tokenize` and without its sentence model.

    A full stop is a word of its own where it ends a sentence; behind an abbreviation or an initial it does so only at
    the end of the text.

    Args:
        text: Any text.

    Example:
        >>> words("She didn't go to St. Petersburg, John's home.")
        ['She', 'did', "n't", 'go', 'to', 'St.', 'Petersburg', ',', 'John', "'s", 'home', '.']
    """
    text = _LAST.sub(_split_full_stop, text)
    text = _CLITICS.sub(r" \1", _APART.sub(r" \g<0> ", text))
    return _CANNOT.sub(r"\1 \2", text).split()


def terms(text: str) -> list[str]:
    """Lower-case runs of at least two word characters.

    Args:
        text: Any text.

    Example:
        >>> terms("A harp, an E-mail")
        ['harp', 'an', 'mail']
    """
    return _TERM.findall(text.lower())


def _split_full_stop(match: re.Match[str]) -> str:
    at_end = not match.string[match.end() :].strip("\"'”’)] \n")  # noqa: RUF001
    kept = not at_end and _ABBREVIATED.fullmatch(match[1])
    return match[0] if kept else f"{match[1]} ."
