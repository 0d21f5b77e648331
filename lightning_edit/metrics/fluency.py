"""Fluency: the entropy of a text's bigrams and trigrams.

A model that repeats itself has few distinct n-grams, and their entropy falls. That is all it sees: nonsense without
repetition is as fluent as prose. It is fed texts and does not know who wrote them.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_edit.metrics.records import RecordMetric, record_keys
from lightning_edit.metrics.words import words

WEIGHTS = {2: 2 / 3, 3: 4 / 3}
"""Weight of each n-gram length; the weighted entropies are then averaged, as in the published code."""

Tokenize = Callable[[str], Sequence[str]]


def ngram_entropy(text: str, tokenize: Tokenize = words) -> Tensor:
    r"""Weighted n-gram entropy of a text, in bits.

    $$\frac{1}{2}\Big(\frac{2}{3} H_2 + \frac{4}{3} H_3\Big), \qquad
      H_n = -\sum_g f_n(g) \log_2 f_n(g)$$

    with $f_n(g)$ the share of the text's n-grams of words that are $g$. Meng et al. (2022), §3.4, "GE"; the weights
    stand in their code. A text without n-grams of some length has no entropy there.

    Args:
        text: Any text.
        tokenize: How to split it into words; `nltk.word_tokenize` for the published numbers to the last digit.

    Example:
        >>> ngram_entropy("no no no no no no"), ngram_entropy("one two three four five")
        (tensor(0.), tensor(1.7233))
    """
    split = list(tokenize(text))
    total = math.fsum(weight * _entropy(split, length) for length, weight in WEIGHTS.items())
    return torch.tensor(total / len(WEIGHTS))


class Fluency(RecordMetric):
    """Weighted bigram and trigram entropy of generated texts, in bits; mean over records of the mean within each.

    Published tables show a hundred times this number.

    Args:
        tokenize: How to split a text into words.
        kwargs: Arguments of every torchmetrics metric.

    Example:
        >>> metric = Fluency()
        >>> metric.update(["one two three four five", "no no no no no no"])
        >>> metric.compute()
        tensor(0.8617)
    """

    higher_is_better = True
    plot_lower_bound = 0.0

    def __init__(self, tokenize: Tokenize = words, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tokenize = tokenize

    def update(self, texts: Sequence[str], records: Sequence[str] | None = None) -> None:
        """Add generated texts.

        Args:
            texts: The texts, in the published protocol with their prompts.
            records: The record that each text belongs to; None makes each a record of its own.
        """
        entropies = [ngram_entropy(text, self.tokenize).double() for text in texts]
        values = torch.stack(entropies) if entropies else torch.zeros(0, dtype=torch.float64)
        self._keep(values, record_keys(records, len(texts)))

    def compute(self) -> Tensor:
        """Mean over records; nan if nothing was seen."""
        return self._means().mean().float()


def _entropy(split: list[str], length: int) -> float:
    """Entropy of a text's n-grams of one length, in bits."""
    grams = Counter(zip(*(split[start:] for start in range(length)), strict=False))
    total = grams.total()
    return math.fsum(-count / total * math.log2(count / total) for count in grams.values())
