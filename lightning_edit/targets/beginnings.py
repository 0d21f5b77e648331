"""What token sequences have in common at their beginnings, so that it is run once.

The prompts of many columns stand behind the same few contexts. This file knows tuples of tokens and nothing else.
"""

from collections import Counter
from collections.abc import Sequence

Tokens = tuple[int, ...]

SHARERS = (2, 4, 8, 16)  # how many sequences a beginning has to be common to; the cheapest of these is taken


def shared_beginnings(sequences: Sequence[Tokens]) -> tuple[list[Tokens], list[int]]:
    """Beginnings to run once, such that they and what is left of each sequence are few padded tokens.

    Args:
        sequences: Different sequences.

    Returns:
        The beginnings, one of them empty where some sequence shares nothing (or where sharing does not pay), and for
        each sequence the index of its own.

    Example:
        >>> shared_beginnings([(1, 2, 3), (1, 2, 4), (5,)])
        ([(1, 2), ()], [0, 0, 1])
    """
    common = Counter(ids[:length] for ids in sequences for length in range(1, len(ids) + 1))
    best: list[Tokens] = [()] * len(sequences)
    for sharers in SHARERS:
        chosen = [_longest(ids, common, sharers) for ids in sequences]
        if _padded(sequences, chosen) < _padded(sequences, best):
            best = chosen
    heads = list(dict.fromkeys(best))
    place = {head: i for i, head in enumerate(heads)}
    return heads, [place[head] for head in best]


def _longest(ids: Tokens, common: Counter[Tokens], sharers: int) -> Tokens:
    """The longest beginning that enough sequences have."""
    lengths = (length for length in range(len(ids), 0, -1) if common[ids[:length]] >= sharers)
    return ids[: next(lengths, 0)]


def _padded(sequences: Sequence[Tokens], heads: Sequence[Tokens]) -> int:
    """Tokens that are run, padded: each beginning once, and all rests."""
    rest = max(len(ids) - len(head) for ids, head in zip(sequences, heads, strict=True))
    return len({*heads}) * max(map(len, heads)) + len(sequences) * rest
