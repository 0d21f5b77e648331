"""An edit request: what it accepts, what it promises, and how it names a fault."""

import copy
import dataclasses
import json
import pickle

import pytest

from lightning_edit.errors import RequestError
from lightning_edit.fields import BadRequest, Source
from lightning_edit.requests import EditRequest, Probe, check_batch, check_lengths, find_subject, normalise

FULL = {
    "id": "a",
    "prompt": "The mayor of Quellin is",
    "subject": "Quellin",
    "target": "Oda Brandt",
    "old": "Pim Sarko",
    "relation": "mayor",
    "paraphrases": ["Quellin is governed by"],
    "locality": {"near": [{"prompt": "The mayor of Vashti is", "answers": ["Al", "Alan"]}]},
    "portability": {"hop": [{"prompt": "The mayor of Quellin was born in", "answers": ["Ulm"]}]},
    "sentence": "Oda Brandt is the mayor of Quellin.",
    "target_aliases": ["Ms Brandt"],
    "group": "the election",
}


def request(**changes):
    return EditRequest(**{"id": "a", "prompt": "The mayor of Quellin is", "target": "Oda", **changes})


def full(**changes):
    return EditRequest.from_dict({**FULL, **changes})


def test_white_space_around_every_text_goes():
    edit = request(target="  Oda ", prompt="  The mayor of Quellin is ", subject=" Quellin", old="Pim\n", id=" a")
    assert (edit.id, edit.prompt, edit.target, edit.old) == ("a", "The mayor of Quellin is", "Oda", "Pim")
    assert edit.subject_span == (13, 20)


def test_sequences_become_tuples_and_probes_a_mapping():
    edit = request(paraphrases=["x "], locality={"near": [Probe("p ", [" b"])], "none": []})
    assert edit.paraphrases == ("x",)
    assert edit.locality == {"near": (Probe("p", ("b",)),)}
    assert list(edit.locality) == ["near"]
    assert edit.portability == {}


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        full().target = "other"
    with pytest.raises(TypeError):
        full().locality["near"] = ()


def test_equal_requests_hash_alike_and_every_field_counts():
    assert full() == full()
    assert hash(full()) == hash(full())
    changes = {name: "Z" for name in ("id", "target", "old", "relation", "sentence", "group")}
    changes |= {"prompt": "Quellin obeys", "paraphrases": ["y"], "locality": {}, "portability": {}, "subject": "mayor"}
    changes |= {"target_aliases": []}
    others = [full(**{name: value}) for name, value in changes.items()]
    assert len({full(), *others}) == len(changes) + 1


def test_the_order_of_probe_kinds_does_not_count():
    one, two = [Probe("p")], [Probe("q")]
    first, second = request(locality={"x": one, "y": two}), request(locality={"y": two, "x": one})
    assert first == second
    assert hash(first) == hash(second)


def test_the_source_is_kept_and_never_compared():
    here, there = (EditRequest.from_dict(FULL, Source("f", line)) for line in (1, 2))
    assert here.source.line == 1
    assert here == there
    assert hash(here) == hash(there)


@pytest.mark.parametrize("again", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy, copy.copy])
def test_copies_and_pickles_are_equal(again):
    edit = EditRequest.from_dict(FULL, Source("f", 3))
    assert again(edit) == edit
    assert hash(again(edit)) == hash(edit)
    assert again(edit).source == Source("f", 3)


def test_round_trip_through_plain_json():
    edit = full()
    assert json.loads(json.dumps(edit.to_dict())) == FULL
    assert EditRequest.from_dict(edit.to_dict()) == edit


def test_what_is_absent_is_left_out_of_the_dict():
    assert request().to_dict() == {"id": "a", "prompt": "The mayor of Quellin is", "target": "Oda"}


def test_round_trip_keeps_a_span_that_search_would_not_find():
    edit = EditRequest("a", "Mara wrote to Mara", "Lin", subject="Mara", subject_span=(14, 18))
    assert edit.to_dict()["subject_span"] == [14, 18]
    assert EditRequest.from_dict(edit.to_dict()) == edit
    assert edit != dataclasses.replace(edit, subject_span=(0, 4))
    assert "subject_span" not in EditRequest("a", "Mara wrote to Mara", "Lin", subject="Mara").to_dict()


def test_a_numeric_id_becomes_text():
    assert EditRequest.from_dict({"id": 0, "prompt": "p", "target": "t"}).id == "0"


def test_null_counts_as_absent():
    edit = EditRequest.from_dict({"id": "a", "prompt": "p", "target": "t", "old": None, "locality": None})
    assert edit.old is None
    assert edit.locality == {}


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


def test_the_target_and_its_aliases_are_accepted_each_once():
    assert request().accepted == ("Oda",)
    assert request(target_aliases=["Brandt ", "Oda", "O. B."]).accepted == ("Oda", "Brandt", "O. B.")


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


def test_answers_may_be_nested_or_single_in_files():
    probes = [{"prompt": "p", "answers": [["a", "b "], ["a"], "c"]}, {"prompt": "q", "answers": "d"}]
    edit = full(locality={"near": probes})
    assert [probe.answers for probe in edit.locality["near"]] == [("a", "b", "c"), ("d",)]


def test_a_lone_string_is_no_list_of_answers_in_python():
    with pytest.raises(RequestError, match="field 'answers': found the string 'Paris', expected a list"):
        Probe("p", "Paris")


def test_an_error_survives_pickling():
    fault = BadRequest("found x", "target", Source("f", 2))
    again = pickle.loads(pickle.dumps(fault))
    assert (str(again), again.field, again.source) == (str(fault), "target", Source("f", 2))


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
