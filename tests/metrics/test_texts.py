"""Fluency and consistency against dense references, their words, and the files that weights come from."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from lightning_edit.errors import EditError
from lightning_edit.metrics import Consistency, Fluency, Idf, ngram_entropy, tfidf_cosine
from lightning_edit.metrics.words import terms, words
from tests import reference_metrics as reference

TEXTS = [
    "She lives in St. Petersburg, and she doesn't like it there. She lives by the river, and she likes the river.",
    "He plays the harp. He plays the harp. He plays the harp. He plays the harp.",
    "one",
    "one two",
    "",
]
EXAMPLES = {
    "They cannot go; John's dog won't.": ["They", "can", "not", "go", ";", "John", "'s", "dog", "wo", "n't", "."],
    "Dr. Who (born 1,234) left... Then J. R. came.": [
        *("Dr.", "Who", "(", "born", "1,234", ")", "left", "...", "Then", "J.", "R.", "came", "."),
    ],
    "It is 3.5 km: far. So be it!": ["It", "is", "3.5", "km", ":", "far", ".", "So", "be", "it", "!"],
    "a well-known state-of-the-art and/or": ["a", "well-known", "state-of-the-art", "and/or"],
}


@pytest.mark.parametrize(("text", "split"), EXAMPLES.items())
def test_words(text: str, split: list[str]) -> None:
    assert words(text) == split


def test_fluency_is_the_weighted_entropy() -> None:
    expected = [reference.fluency(words(text)) for text in TEXTS]
    assert [ngram_entropy(text).item() for text in TEXTS] == pytest.approx(expected, abs=1e-6)
    assert expected[0] > expected[1] > expected[2] == expected[4] == 0
    metric = Fluency()
    metric.update(TEXTS[:3], ["a", "a", "b"])
    assert metric.compute().item() == pytest.approx((sum(expected[:2]) / 2 + expected[2]) / 2, abs=1e-6)
    letters = Fluency(tokenize=list)
    letters.update(["abracadabra"])
    assert letters.compute().item() == pytest.approx(reference.fluency(list("abracadabra")), abs=1e-6)


def test_no_ngram_twice_is_the_most_there_is() -> None:
    text = " ".join(f"w{i}" for i in range(66))
    assert ngram_entropy(text).item() == pytest.approx(math.log2(65) / 3 + 2 * math.log2(64) / 3, abs=1e-6)


def test_consistency_is_the_cosine_of_joined_texts() -> None:
    idf = Idf.fit(TEXTS)
    pairs = [(TEXTS[0], TEXTS[1]), (TEXTS[0], TEXTS[0]), (TEXTS[1], "one two"), ("", TEXTS[0]), ("xyzzy", TEXTS[0])]
    expected = [reference.tfidf_cosine(a, b, dict(idf.weights)) for a, b in pairs]
    assert [tfidf_cosine(a, b, idf).item() for a, b in pairs] == pytest.approx(expected, abs=1e-6)
    assert expected[1] == pytest.approx(1)
    assert expected[2:] == [0, 0, 0]  # nothing in common, nothing said, nothing known
    metric = Consistency(idf)
    metric.update([["He plays", "the harp."], ["the river"]], [[TEXTS[1]], [TEXTS[0], TEXTS[1]]])
    single = [
        reference.tfidf_cosine("He plays the harp.", TEXTS[1], dict(idf.weights)),
        reference.tfidf_cosine("the river", f"{TEXTS[0]} {TEXTS[1]}", dict(idf.weights)),
    ]
    assert metric.compute().item() == pytest.approx(sum(single) / 2, abs=1e-6)


def test_weights_are_counted_as_scikit_learn_counts_them() -> None:
    idf = Idf.fit(["the harp", "the river", "The THE harp a"])
    assert idf.weights == {
        "the": pytest.approx(math.log(4 / 4) + 1),
        "harp": pytest.approx(math.log(4 / 3) + 1),
        "river": pytest.approx(math.log(4 / 2) + 1),
    }
    assert terms("L'été, C3PO x") == ["été", "c3po"]


def test_weights_come_from_the_published_pair_of_files(tmp_path: Path) -> None:
    np.save(tmp_path / "idf.npy", np.array([2.0, 1.5, 1.0]))
    (tmp_path / "vocabulary.json").write_text(json.dumps({"harp": 0, "the": 2, "river": 1}))
    idf = Idf.read(tmp_path / "idf.npy", tmp_path / "vocabulary.json")
    assert idf.weights == {"harp": 2.0, "river": 1.5, "the": 1.0}
    (tmp_path / "idf.json").write_text(json.dumps(dict(idf.weights)))
    assert Idf.read(tmp_path / "idf.json") == idf


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "idf.npy", np.array([2.0, 1.5]))
    vocabulary = tmp_path / "vocabulary.json"
    with pytest.raises(EditError, match="found a vector and no vocabulary"):
        Idf.read(tmp_path / "idf.npy")
    for places in ({"a": 0}, {"a": 0, "b": 2}, {"a": 0, "b": 0}):
        vocabulary.write_text(json.dumps(places))
        with pytest.raises(EditError, match="each of its places once"):
            Idf.read(tmp_path / "idf.npy", vocabulary)
    vocabulary.write_text("[1]")
    with pytest.raises(EditError, match="found a JSON list"):
        Idf.read(vocabulary)
    with pytest.raises(EditError, match=r"absent\.json"):
        Idf.read(tmp_path / "absent.json")


def test_groups_of_texts_are_asked_for() -> None:
    metric = Consistency(Idf({"harp": 1.0}))
    with pytest.raises(EditError, match="list of texts"):
        metric.update(["a harp"], ["a harp"])
    with pytest.raises(EditError, match="without reference texts"):
        metric.update([["a harp"]], [[]])
    metric.update([], [])
    assert metric.compute().isnan()
