"""Requests beside each other and beside a model: which contradict each other, and which are too long."""

import pytest

from lightning_edit.errors import RequestError
from lightning_edit.fields import BadRequest, Source
from lightning_edit.requests import Probe, check_batch, check_lengths, normalise
from tests.requests.quellin import request


def test_normalise_folds_case_width_and_space():
    assert normalise(" \uff31uellin\n OBEYS ") == "quellin obeys"


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ({"subject": "Quellin"}, {"subject": "quellin", "prompt": "the  MAYOR of quellin is"}, True),
        ({"subject": "Quellin"}, {"subject": "Quellin", "prompt": "Quellin is ruled by"}, False),
        (
            {"subject": "Quellin", "relation": "mayor"},
            {"subject": "Quellin", "relation": "Mayor", "prompt": "Quellin obeys"},
            True,
        ),
        ({"subject": "Quellin", "relation": "mayor"}, {"subject": "Quellin", "relation": "river"}, False),
        ({"subject": "Quellin"}, {"subject": "mayor"}, False),
        ({}, {"prompt": "the mayor of QUELLIN is"}, True),
        ({"relation": "mayor"}, {"relation": "mayor", "prompt": "The mayor of Vashti is"}, False),
        ({}, {"subject": "Quellin"}, False),
    ],
)
def test_conflict_key(one, two, same):
    assert (request(**one).conflict_key == request(**two).conflict_key) is same


def test_conflict_key_blanks_the_subject():
    assert request(subject="Quellin").conflict_key == ("quellin", "the mayor of {} is")


def test_a_batch_without_quarrel_passes():
    same_again = request(id="b")
    check_batch(iter([request(), same_again, request(id="c", prompt="Other", target="x")]))


def test_a_batch_with_an_id_twice_is_refused():
    batch = [request(source=Source("f", 1)), request(prompt="Other", source=Source("f", 9))]
    with pytest.raises(
        RequestError, match=r"^f, line 9, field 'id': found the id 'a' a second time \(first at f, line 1\)"
    ):
        check_batch(batch)


def test_a_batch_that_contradicts_itself_is_refused():
    first = request(subject="Quellin", source=Source("f", 1))
    second = request(id="b", subject="QUELLIN", target="Pim", source=Source("f", 2))
    with pytest.raises(RequestError) as caught:
        check_batch([first, second])
    assert str(caught.value).startswith("f, line 2, field 'target': request 'b' wants 'Pim'")
    assert "'a' (f, line 1) of the same batch wants 'Oda'" in str(caught.value)


def words(texts):
    return {"input_ids": [text.split() for text in texts]}


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("prompt", {"target": "one two three four five six"}),
        ("prompt", {"target_aliases": ["one two three four five six"]}),
        ("paraphrases[1]", {"paraphrases": ["x", "1 2 3 4 5 6 7 8 9"]}),
        ("locality.near[0].prompt", {"locality": {"near": [Probe("1 2 3 4 5 6 7 8 9 10")]}}),
        ("portability.hop[0].prompt", {"portability": {"hop": [Probe("1 2 3 4 5", ("a", "1 2 3 4 5"))]}}),
    ],
)
def test_a_text_longer_than_the_context_is_named(field, changes):
    edit = request(**changes, source=Source("f", 4))
    check_lengths([edit], words, 11)
    with pytest.raises(BadRequest, match=r"request 'a' needs 1[01] tokens here, expected at most 9") as caught:
        check_lengths([request(), edit], words, 9)
    assert caught.value.field == field
    assert caught.value.source == Source("f", 4)


def test_lengths_by_a_real_tokenizer(tokenizer):
    edit = request()
    needed = len(tokenizer("The mayor of Quellin is Oda")["input_ids"])
    check_lengths([edit], tokenizer, needed)
    with pytest.raises(RequestError, match=f"needs {needed} tokens here, expected at most {needed - 1}"):
        check_lengths([edit], tokenizer, needed - 1)
