"""Where a prompt names its subject."""

import pytest

from lightning_edit.errors import RequestError
from lightning_edit.requests import find_subject
from tests.requests.quellin import request


@pytest.mark.parametrize(
    ("prompt", "subject", "expected"),
    [
        ("The mother tongue of Ilka Voss is", "Ilka Voss", "Ilka Voss"),
        ("Ann met Ann", "Ann", (0, 3)),  # the first
        ("Annette and Ann", "Ann", (12, 15)),  # whole words before parts of words
        ("the band THE  THE plays", "The the", "THE  THE"),  # case and white space
        ("ANNETTE and ann", "Ann", (12, 15)),  # loose, but never inside a word
        ("東京タワーは", "東京", (0, 2)),  # no spaces between words
        ("In Lyon's streets", "Lyon", (3, 7)),
        ('Who made "Heroes"?', '"Heroes"', (9, 17)),
        ("C++ (a.b) is", "C++ (a.b)", (0, 9)),  # no pattern characters
        ("STRASSE", "Straße", None),  # folding that changes the length is no match
        ("The capital of Spain is", "AI", None),
        ("Nothing here", "Quellin", None),
    ],
)
def test_find_subject(prompt, subject, expected):
    span = find_subject(prompt, subject)
    if isinstance(expected, str):
        expected = (prompt.index(expected), prompt.index(expected) + len(expected))
    assert span == expected


def test_the_subject_is_kept_as_the_prompt_spells_it():
    edit = request(subject="QUELLIN")
    assert edit.subject == "Quellin"
    assert edit.prompt[slice(*edit.subject_span)] == edit.subject


def test_without_subject_there_is_no_span():
    assert request().subject_span is None


def test_a_span_alone_names_the_subject():
    edit = request(subject_span=(13, 20))
    assert edit.subject == "Quellin"


def test_a_span_is_counted_in_the_prompt_as_given():
    edit = request(prompt="  Quellin obeys ", subject_span=(2, 9))
    assert edit.subject == "Quellin"
    assert edit.subject_span == (0, 7)


@pytest.mark.parametrize(
    "span", [(5, 5), (20, 13), (-1, 3), (0, 999), (0,), (0, 1, 2), ("0", "4"), (0, True), "0-4", 3]
)
def test_a_span_outside_the_prompt_is_refused(span):
    with pytest.raises(RequestError, match=r"field 'subject_span': found .* expected \[start, end\) inside the prompt"):
        request(subject_span=span)


def test_a_span_with_other_text_is_refused():
    with pytest.raises(RequestError, match="found the text 'mayor' there, expected the subject 'Quellin'"):
        request(subject="Quellin", subject_span=(4, 9))
