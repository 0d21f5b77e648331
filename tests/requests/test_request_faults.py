"""How a request names a fault: file, line, field, what was found and what was expected."""

import pickle

import pytest

from lightning_edit.errors import RequestError
from lightning_edit.fields import BadRequest, Source
from lightning_edit.requests import EditRequest, Probe
from tests.requests.quellin import FULL, request


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"id": None}, "id", "found null"),
        ({"id": True}, "id", "found the boolean True"),
        ({"prompt": ""}, "prompt", "found an empty string"),
        ({"prompt": ["x"]}, "prompt", "found a list of 1, expected a string"),
        ({"target": "  "}, "target", "found an empty string"),
        ({"target": 1998}, "target", "found the number 1998, expected a string"),
        ({"target": None}, "target", "found null, expected a value"),
        ({"target": "a\udcff"}, "target", "the byte 0xff"),
        ({"target": "a\ud83d"}, "target", "half a surrogate pair (U+D83D)"),
        ({"subject": ""}, "subject", "leave it out"),
        ({"subject": "Vashti"}, "subject", "found no 'Vashti' in the prompt 'The mayor of Quellin is'"),
        ({"old": {}}, "old", "found an object"),
        ({"relation": 3}, "relation", "found the number 3"),
        ({"paraphrases": "one"}, "paraphrases", "found the string 'one', expected a list"),
        ({"paraphrases": ["x", 4]}, "paraphrases[1]", "found the number 4"),
        ({"locality": []}, "locality", "found an empty list, expected an object"),
        ({"locality": {"near": {}}}, "locality.near", "found an object, expected a list"),
        ({"locality": {"near": ["p"]}}, "locality.near[0]", "found the string 'p', expected an object"),
        ({"locality": {"near": [{"answers": ["x"]}]}}, "locality.near[0].prompt", "found no such field"),
        ({"locality": {"near": [{"prompt": "p", "answers": [""]}]}}, "locality.near[0].answers[0]", "empty string"),
        ({"locality": {"near": [{"prompt": "p", "answer": ["x"]}]}}, "locality.near[0].answer", "mean 'answers'?"),
        ({"portability": {"hop": [{"prompt": "p"}]}}, "portability.hop[0].answers", "at least one"),
        ({"target_aliases": "Brandt"}, "target_aliases", "found the string 'Brandt', expected a list"),
        ({"target_aliases": [" "]}, "target_aliases[0]", "found an empty string"),
        ({"group": 4}, "group", "found the number 4"),
        ({"subject_span": 4}, "subject_span", "found the number 4, expected a list"),
        ({"subject_span": ["a", 4]}, "subject_span", "inside the prompt"),
        ({"subjct": "x"}, "subjct", "did you mean 'subject'?"),
        ({"target_new": "x"}, "target_new", "did you mean 'target'?"),
        ({"rephrase": "x"}, "rephrase", "did you mean 'paraphrases'?"),
        ({"colour": "x"}, "colour", "found an unknown field, expected one of id, prompt, target"),
    ],
)
def test_every_fault_names_file_line_and_field(changes, field, words):
    with pytest.raises(BadRequest) as caught:
        EditRequest.from_dict({**FULL, **changes}, Source("edits.jsonl", 12))
    assert caught.value.field == field
    assert caught.value.source == Source("edits.jsonl", 12)
    assert str(caught.value).startswith(f"edits.jsonl, line 12, field '{field}': found ")
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["id", "prompt", "target"])
def test_a_missing_field_is_named(name):
    data = {key: value for key, value in FULL.items() if key != name}
    with pytest.raises(BadRequest, match=f"field '{name}': found no such field, expected a value") as caught:
        EditRequest.from_dict(data)
    assert caught.value.field == name


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"prompt": None}, "prompt"),
        ({"target": 5}, "target"),
        ({"id": 5}, "id"),
        ({"paraphrases": "x"}, "paraphrases"),
        ({"locality": [1]}, "locality"),
        ({"locality": {"near": Probe("p")}}, "locality.near"),
        ({"locality": {"near": ["p"]}}, "locality.near[0]"),
        ({"portability": {"hop": [Probe("p")]}}, "portability.hop[0].answers"),
        ({"subject": "Vashti"}, "subject"),
    ],
)
def test_python_users_meet_the_same_checks(changes, field):
    with pytest.raises(BadRequest) as caught:
        request(**changes)
    assert caught.value.field == field


def test_a_lone_string_is_no_list_of_answers_in_python():
    with pytest.raises(RequestError, match="field 'answers': found the string 'Paris', expected a list"):
        Probe("p", "Paris")


def test_an_error_survives_pickling():
    fault = BadRequest("found x", "target", Source("f", 2))
    again = pickle.loads(pickle.dumps(fault))
    assert (str(again), again.field, again.source) == (str(fault), "target", Source("f", 2))
