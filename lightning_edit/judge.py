"""When an answer counts as right.

Knows two strings and how much they may differ: letter case, an article in front, punctuation at the ends, white space,
Unicode width. Refuses to know how the answer was obtained (`decoding.py`), where in a continuation it stands
(`evaluation/reading.py`), and what the share of right answers is called (`metrics/`).
"""

import re
from collections.abc import Iterable

from lightning_edit.requests import normalise

_ARTICLE = re.compile(r"^(?:an?|the)\s+(?=\S)")
_SPELLINGS = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "‐": "-", "‑": "-", "–": "-", "—": "-"})  # noqa: RUF001
_OPENING = "\"'`*_([{«<,:; "
_CLOSING = "\"'`*_)]}»>,:;.!?… "


def normalise_answer(text: str) -> str:
    """Reduce an answer to what it says.

    Unicode NFKC, case folded, one kind of quotes and dashes, single spaces, no punctuation at the ends, no article in
    front. A full stop or a sign in front stays (`.5`, `-5`), and so does an article inside (`Vitamin A`). A text of
    punctuation only is kept as it is.

    Args:
        text: The answer.

    Example:
        >>> normalise_answer('  The “Eiffel  Tower”. ')
        'eiffel tower'
        >>> normalise_answer("-3.5"), normalise_answer("St. Petersburg.")
        ('-3.5', 'st. petersburg')
    """
    plain = normalise(text).translate(_SPELLINGS)
    bare = _ARTICLE.sub("", plain.lstrip(_OPENING).rstrip(_CLOSING)).lstrip(_OPENING)
    return bare or plain


def exact_match(answer: str, accepted: str | Iterable[str]) -> bool:
    """Whether the answer says the same as one of the accepted answers.

    Nothing is searched inside the answer: `Paris, Texas` is not `Paris`, and an answer that goes on is another answer.
    What a base model writes behind its answer has to be cut before; `evaluation.first_sentence` does that.

    Args:
        answer: What the model said.
        accepted: A right answer, or several (aliases); any of them will do.

    Example:
        >>> exact_match("the United States.", ["USA", "United States"])
        True
        >>> exact_match("Paris, Texas", "Paris")
        False
    """
    names = (accepted,) if isinstance(accepted, str) else accepted
    said = normalise_answer(answer)
    return any(normalise_answer(name) == said for name in names)
