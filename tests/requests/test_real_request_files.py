"""The published files themselves: every record is read, and what they are known to hold is found in them."""

import json
from collections import Counter

import pytest

from lightning_edit.data import load_requests
from lightning_edit.requests import EditRequest

EXPECTED = {
    "counterfact/counterfact-edit.json": ("CounterFact, flat", 10_000, {"neighborhood": 10_000}, {}),
    "knowedit/ZsRE-test-all.json": (
        "KnowEdit ZsRE",
        1_301,
        {"Relation_Specificity": 2_602},
        {"Reasoning": 771, "Subject_Aliasing": 263, "Logical_Generalization": 267},
    ),
    "knowedit/wiki_counterfact_test_cf.json": (
        "KnowEdit wiki_counterfact",
        839,
        {"Relation_Specificity": 5_486, "Forgetfulness": 468},
        {"Reasoning": 2_082, "Subject_Aliasing": 2_358, "Logical_Generalization": 405},
    ),
    "zsre/zsre_mend_train-1k.json": ("zsRE, MEND's training form", 1_000, {"nq": 1_000}, {}),
    "elken/test.json": ("ELKEN", 577, {"unaffected": 1_325}, {"unknown": 449, "inferred": 315}),
    "elken/train.json": ("ELKEN", 460, {"unaffected": 1_320}, {"unknown": 276, "inferred": 235}),
    "selfcheckgpt_hallucination/hallucination-train.json": ("WISE hallucination", 306, {"unrelated": 306}, {}),
}
PARAPHRASES = {"ELKEN": 0, "WISE hallucination": 0}  # for each request; one where nothing is said

NOTES = {
    "counterfact/counterfact-edit.json": {"target": 80},  # requests that replace an earlier one
    "knowedit/ZsRE-test-all.json": {"target": 10, "ground_truth": 43},  # the old answer is the target
    "knowedit/wiki_counterfact_test_cf.json": {"target": 20},
    "zsre/zsre_mend_train-1k.json": {"answers": 19, "alt": 2},  # `alt` is empty
    "elken/test.json": {"fact.qas": 398 + 57, "target": 28},  # no factual question; none whose answer is stated
    "elken/train.json": {"fact.qas": 330 + 50},
    "selfcheckgpt_hallucination/hallucination-train.json": {"locality_ground_truth": 5},
}
FIRST = {
    "counterfact/counterfact-edit.json": ("Danielle Darrieux", "English", "French"),
    "knowedit/ZsRE-test-all.json": ("Epaspidoceras", "Noctuidae", "Aspidoceratidae"),
    "knowedit/wiki_counterfact_test_cf.json": ("Leonardo DiCaprio", "Syria", "United States of America"),
    "zsre/zsre_mend_train-1k.json": ("UniFirst", "unmanned aircraft", "uniform"),
    "elken/test.json": ("Echoes from the Abyss", "Chimamanda Ngozi Adichie", None),
    "elken/train.json": ("General Electric", "National Football League", None),
    "selfcheckgpt_hallucination/hallucination-train.json": (
        "frank a. mclain",
        "He was reelected to the Fifty-sixth and to the four succeeding Congresses and served from December 12, 1898, "
        "to March 3, 1909.",
        None,
    ),
}


@pytest.fixture(scope="module", params=sorted(EXPECTED))
def real(request, shared_data):
    path = shared_data / request.param
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    return request.param, load_requests(path)


def test_every_record_is_read(real):
    name, requests = real
    layout, count, locality, portability = EXPECTED[name]
    assert (requests.format, len(requests), requests.skipped) == (layout, count, [])
    assert Counter(kind for edit in requests for kind, probes in edit.locality.items() for _ in probes) == locality
    assert (
        Counter(kind for edit in requests for kind, probes in edit.portability.items() for _ in probes) == portability
    )
    assert all(len(edit.paraphrases) == PARAPHRASES.get(layout, 1) for edit in requests)
    assert len({edit.id for edit in requests}) == count


def test_every_subject_stands_in_its_prompt_once_and_no_text_has_loose_ends(real):
    for edit in real[1]:
        assert edit.prompt[slice(*edit.subject_span)] == edit.subject
        assert edit.prompt.count(edit.subject) == 1
        assert edit.old != edit.target
        for text in (edit.prompt, edit.target, edit.subject, *edit.paraphrases):
            assert text == text.strip() != ""


def test_what_was_read_otherwise_than_to_the_letter(real):
    name, requests = real
    assert Counter(note.field for note in requests.notes) == NOTES[name]


def test_round_trip(real):
    assert [EditRequest.from_dict(edit.to_dict()) for edit in real[1]] == real[1]


def test_the_first_record(real):
    name, requests = real
    assert (requests[0].subject, requests[0].target, requests[0].old) == FIRST[name]


@pytest.mark.parametrize(
    ("file", "events", "fallbacks", "abstentions"), [("test.json", 326, 57, 41), ("train.json", 347, 50, 13)]
)
def test_no_event_of_elken_with_a_factual_question_is_lost(file, events, fallbacks, abstentions, shared_data):
    path = shared_data / "elken" / file
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    requests = load_requests(path)
    told = {record["event"].strip(): record["fact"] for record in json.loads(path.read_text(encoding="utf-8"))}
    groups = {}
    for edit in requests:
        groups.setdefault(edit.group, []).append(edit)
    assert len(groups) == events
    assert sum("found no answer that the event states" in note.reason for note in requests.notes) == fallbacks
    assert sum(edit.target == "unknown" for edit in requests) == abstentions
    for edits in groups.values():
        fact = told[edits[0].sentence]
        probes = [probe for kinds in edits[-1].portability.values() for probe in kinds]
        asked = [(edit.prompt, edit.target) for edit in edits] + [(probe.prompt, probe.answers[0]) for probe in probes]
        assert sorted(asked) == sorted((qa["question"].strip(), qa["answer"]["name"].strip()) for qa in fact["qas"])
        kept = [probe.prompt for probe in edits[-1].locality.get("unaffected", ())]
        assert kept == [qa["question"].strip() for qa in fact["local_qas"]]
        assert not any(edit.locality or edit.portability for edit in edits[:-1])
