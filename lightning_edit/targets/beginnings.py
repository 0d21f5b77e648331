"""What token sequences have in common at their beginnings, so that it is run once.

The prompts of many columns stand behind the same few contexts. This file knows tuples of tokens and nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

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
    sharing = _sharing(sequences)
    best: list[Tokens] = [()] * len(sequences)
    for sharers in SHARERS:
        chosen = [ids[: sum(n >= sharers for n in counts)] for ids, counts in zip(sequences, sharing, strict=True)]
        if _padded(sequences, chosen) < _padded(sequences, best):
            best = chosen
    heads = list(dict.fromkeys(best))
    place = {head: i for i, head in enumerate(heads)}
    return heads, [place[head] for head in best]


@dataclass(slots=True)
class _Node:
    """A beginning in a tree of them: how many sequences have it, and the longer ones by their next token."""

    count: int = 0
    longer: dict[int, "_Node"] = field(default_factory=dict)


def _sharing(sequences: Sequence[Tokens]) -> list[list[int]]:
    """For each sequence and each of its lengths from 1, how many sequences begin with so many of its tokens.

    The numbers of a sequence never rise.
    """
    root, paths = _Node(), []
    for ids in sequences:
        node, path = root, []
        for token in ids:
            node = node.longer.setdefault(token, _Node())
            node.count += 1
            path.append(node)
        paths.append(path)
    return [[node.count for node in path] for path in paths]


def _padded(sequences: Sequence[Tokens], heads: Sequence[Tokens]) -> int:
    """Tokens that are run, padded: each beginning once, and all rests."""
    rest = max(len(ids) - len(head) for ids, head in zip(sequences, heads, strict=True))
    return len({*heads}) * max(map(len, heads)) + len(sequences) * rest
