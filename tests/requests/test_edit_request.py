"""An edit request: what it accepts and what it promises."""

import copy
import dataclasses
import json
import pickle

import pytest

from lightning_edit.fields import Source
from lightning_edit.requests import EditRequest, Probe
from tests.requests.quellin import FULL, full, request


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


def test_the_target_and_its_aliases_are_accepted_each_once():
    assert request().accepted == ("Oda",)
    assert request(target_aliases=["Brandt ", "Oda", "O. B."]).accepted == ("Oda", "Brandt", "O. B.")


def test_answers_may_be_nested_or_single_in_files():
    probes = [{"prompt": "p", "answers": [["a", "b "], ["a"], "c"]}, {"prompt": "q", "answers": "d"}]
    edit = full(locality={"near": probes})
    assert [probe.answers for probe in edit.locality["near"]] == [("a", "b", "c"), ("d",)]
