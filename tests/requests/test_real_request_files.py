"""The published files themselves: every record is read, and what they are known to hold is found in them."""

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
}
NOTES = {
    "counterfact/counterfact-edit.json": {"target": 80},  # requests that replace an earlier one
    "knowedit/ZsRE-test-all.json": {"target": 10, "ground_truth": 43},  # the old answer is the target
    "knowedit/wiki_counterfact_test_cf.json": {"target": 20},
    "zsre/zsre_mend_train-1k.json": {"answers": 19, "alt": 2},  # `alt` is empty
}
FIRST = {
    "counterfact/counterfact-edit.json": ("Danielle Darrieux", "English", "French"),
    "knowedit/ZsRE-test-all.json": ("Epaspidoceras", "Noctuidae", "Aspidoceratidae"),
    "knowedit/wiki_counterfact_test_cf.json": ("Leonardo DiCaprio", "Syria", "United States of America"),
    "zsre/zsre_mend_train-1k.json": ("UniFirst", "unmanned aircraft", "uniform"),
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
    assert all(len(edit.paraphrases) == 1 for edit in requests)
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
