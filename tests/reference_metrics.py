"""The metrics once more, slow and independent of the package: loops over records as the published definitions read.

Knows numpy and plain Python only. A CounterFact record is a dictionary with a list of prompts for each kind, and every
prompt is a pair (log-probability of the new answer, log-probability of the old one).
"""

import math
import re
from typing import Any

import numpy as np

Record = dict[str, list[tuple[float, float]]]


def success(records: list[Record], kind: str) -> float:
    """Mean over records of the share of prompts that the right one of two answers wins; ties are lost."""
    shares = []
    for record in records:
        wins = [old > new if kind == "neighborhood" else new > old for new, old in record[kind]]
        shares.append(np.mean(wins))
    return float(np.mean(shares))


def magnitude(records: list[Record], kind: str) -> float:
    """Mean over records of the mean difference of probabilities."""
    means = []
    for record in records:
        gaps = [math.exp(new) - math.exp(old) for new, old in record[kind]]
        means.append(np.mean([-gap if kind == "neighborhood" else gap for gap in gaps]))
    return float(np.mean(means))


def score(records: list[Record]) -> float:
    """Harmonic mean of the three successes."""
    parts = [success(records, kind) for kind in ("efficacy", "paraphrase", "neighborhood")]
    return 0.0 if 0.0 in parts else 3 / sum(1 / part for part in parts)


def token_accuracy(records: list[list[list[bool]]]) -> float:
    """Mean over records of the share of right tokens among all tokens of its prompts."""
    return float(np.mean([np.mean([token for prompt in record for token in prompt]) for record in records]))


def event_accuracy(events: list[list[bool]]) -> float:
    """Share of events without a wrong answer."""
    return sum(1 for event in events if False not in event) / len(events)


def match_ratio(before: list[int], after: list[int]) -> float:
    """Share of positions with the same token; what is missing on one side matches nothing."""
    length = max(len(before), len(after))
    if length == 0:
        return 1.0
    first, second = ([*ids, *[None] * (length - len(ids))] for ids in (before, after))
    return sum(1 for a, b in zip(first, second, strict=True) if a == b and a is not None) / length


def fluency(split: list[str]) -> float:
    """Mean of 2/3 of the bigrams' entropy and 4/3 of the trigrams', in bits."""
    weighted = []
    for length, weight in ((2, 2 / 3), (3, 4 / 3)):
        grams = [" ".join(split[i : i + length]) for i in range(len(split) - length + 1)]
        shares = np.array([grams.count(gram) for gram in sorted(set(grams))], dtype=np.float64)
        shares = shares / shares.sum() if len(shares) else shares
        weighted.append(weight * float(np.sum(-shares * np.log(shares) / np.log(2))))
    return float(np.mean(weighted))


def tfidf_cosine(a: str, b: str, idf: dict[str, float]) -> float:
    """Cosine of two dense vectors over the whole vocabulary."""
    vocabulary = sorted(idf)
    vectors = []
    for text in (a, b):
        found: Any = re.findall(r"(?u)\b\w\w+\b", text.lower())
        vectors.append(np.array([found.count(term) * idf[term] for term in vocabulary]))
    norms = np.linalg.norm(vectors[0]) * np.linalg.norm(vectors[1])
    return float(vectors[0] @ vectors[1] / norms) if norms else 0.0
