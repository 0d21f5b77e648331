"""Consistency: do generated texts read like texts about things of which the new fact is true?

Both sides become vectors of tf-idf weights, and their cosine is taken. What the weights are and which texts are the
reference decides the number, so both come from files that the user names, and none are built in.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_edit.errors import EditError
from lightning_edit.metrics.records import RecordMetric, record_keys
from lightning_edit.metrics.words import terms


@dataclass(frozen=True, slots=True)
class Idf:
    """Inverse document frequencies: how much a term says. Terms that are not in it count for nothing.

    Args:
        weights: Term to weight.

    Example:
        >>> Idf.fit(["the harp", "the piano"]).weights["the"]
        1.0
    """

    weights: Mapping[str, float]

    @classmethod
    def read(cls, weights: str | Path, vocabulary: str | Path | None = None) -> "Idf":
        """Read weights from files.

        Args:
            weights: A `.npy` vector, as published beside CounterFact (`idf.npy`), or a JSON object of term to weight.
            vocabulary: For a vector, a JSON object of term to place in it (`tfidf_vocab.json`).
        """
        path = Path(weights)
        if path.suffix != ".npy":
            return cls({str(term): float(weight) for term, weight in _json_object(path).items()})
        if vocabulary is None:
            raise EditError(f"{path}: found a vector and no vocabulary, expected the file that places its terms.")
        vector = np.load(path, allow_pickle=False)
        places = _json_object(Path(vocabulary))
        if vector.ndim != 1 or sorted(places.values()) != list(range(len(vector))):
            raise EditError(
                f"{path} has the shape {vector.shape} and {vocabulary} names {len(places)} places, expected a vector "
                "and each of its places once; take the two files from one source."
            )
        return cls({term: float(vector[place]) for term, place in places.items()})

    @classmethod
    def fit(cls, documents: Iterable[str]) -> "Idf":
        r"""Count documents: $\text{idf}(t) = \ln\frac{1 + N}{1 + N_t} + 1$, as scikit-learn smooths it.

        Args:
            documents: Texts of the corpus, for instance all reference texts.
        """
        total, holding = 0, Counter[str]()
        for document in documents:
            total += 1
            holding.update(set(terms(document)))
        return cls({term: math.log((1 + total) / (1 + count)) + 1 for term, count in holding.items()})


def tfidf_cosine(text: str, reference: str, idf: Idf) -> Tensor:
    r"""Cosine of two texts' tf-idf vectors, in 0..1.

    $$\frac{\sum_t a_t b_t}{\|a\| \|b\|}, \qquad a_t = \text{count}(t) \cdot \text{idf}(t)$$

    Meng et al. (2022), §3.4, "RS". A text without a known term has nothing in common with any other: 0.

    Args:
        text: A text.
        reference: The text it should read like.
        idf: Weights of terms.

    Example:
        >>> idf = Idf({"harp": 2.0, "plays": 1.0, "piano": 2.0})
        >>> tfidf_cosine("She plays the harp", "He plays the piano", idf)
        tensor(0.2000)
    """
    a, b = _vector(text, idf), _vector(reference, idf)
    product = math.fsum(weight * b[term] for term, weight in a.items() if term in b)
    norms = math.hypot(*a.values()) * math.hypot(*b.values())
    return torch.tensor(product / norms if norms else 0.0)


class Consistency(RecordMetric):
    """Tf-idf cosine between a record's generated texts, joined, and its reference texts, joined; mean over records.

    Published tables show a hundred times this number.

    Args:
        idf: Weights of terms, from the files the reference was published with.
        kwargs: Arguments of every torchmetrics metric.

    Example:
        >>> metric = Consistency(Idf({"harp": 2.0, "plays": 1.0, "piano": 2.0}))
        >>> metric.update(texts=[["She plays.", "It is a harp, a harp."]], references=[["He plays the harp"]])
        >>> metric.compute()
        tensor(0.9762)
    """

    higher_is_better = True
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    def __init__(self, idf: Idf, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.idf = idf

    def update(self, texts: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> None:
        """Add records.

        Args:
            texts: For each record, what was generated for it.
            references: For each record, the texts it should read like.
        """
        if len(texts) != len(references) or any(isinstance(group, str) for group in (*texts, *references)):
            raise EditError(
                f"Found {len(texts)} groups of texts and {len(references)} of references, expected for each record a "
                "list of texts and a list of references."
            )
        if not all(references):
            raise EditError("Found a record without reference texts, expected at least one; leave it out.")
        pairs = zip(texts, references, strict=True)
        cosines = [tfidf_cosine(" ".join(text), " ".join(reference), self.idf).double() for text, reference in pairs]
        values = torch.stack(cosines) if cosines else torch.zeros(0, dtype=torch.float64)
        self._keep(values, record_keys(None, len(cosines)))

    def compute(self) -> Tensor:
        """Mean over records; nan if nothing was seen."""
        return self._means().mean().float()


def _vector(text: str, idf: Idf) -> dict[str, float]:
    """Weights of a text's known terms."""
    counts = Counter(term for term in terms(text) if term in idf.weights)
    return {term: count * idf.weights[term] for term, count in counts.items()}


def _json_object(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EditError(f"{path}: {error}; expected a readable JSON object of terms.") from error
    if not isinstance(data, dict):
        raise EditError(f"{path}: found a JSON {type(data).__name__}, expected an object of terms.")
    return data
