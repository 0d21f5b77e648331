"""Every request format, one small file each: recognised by its content, read to the letter."""

import json

import pytest

from lightning_edit.data import load_requests
from lightning_edit.errors import RequestError
from lightning_edit.requests import EditRequest, Probe
from tests.requests.files import FILES, check_fault, records, write


@pytest.mark.parametrize(
    ("file", "name", "count"),
    [
        ("own.jsonl", "the package's own JSONL", 3),
        ("zsre.json", "KnowEdit ZsRE", 2),
        ("wiki_counterfact.json", "KnowEdit wiki_counterfact", 2),
        ("counterfact.json", "CounterFact, flat", 2),
        ("counterfact_rome.json", "CounterFact, ROME's form", 2),
        ("zsre_mend.json", "zsRE, MEND's training form", 2),
        ("elken.json", "ELKEN", 3),
        ("mquake.json", "MQuAKE", 3),
        ("qaedit.json", "QAEdit", 2),
        ("wise_hallucination.json", "WISE hallucination", 2),
    ],
)
def test_each_format_is_recognised_whatever_the_container(file, name, count, tmp_path):
    requests = load_requests(FILES / file)
    assert (requests.format, len(requests), requests.skipped) == (name, count, [])
    as_array, as_lines = tmp_path / "x.txt", tmp_path / "y.txt"
    as_array.write_text(json.dumps(records(file), indent=2), encoding="utf-8")
    as_lines.write_text("\n".join(map(json.dumps, records(file))), encoding="utf-8")
    assert load_requests(as_array) == load_requests(as_lines) == requests


@pytest.mark.parametrize("file", sorted(path.name for path in FILES.glob("*.json*")))
def test_each_format_survives_the_round_trip_to_our_own(file):
    requests = load_requests(FILES / file)
    assert [EditRequest.from_dict(json.loads(json.dumps(edit.to_dict()))) for edit in requests] == requests


def test_own():
    mayor, rain, twice = load_requests(FILES / "own.jsonl")
    assert mayor == EditRequest(
        id="mayor-1",
        prompt="The mayor of Quellin is",
        target="Oda Brandt",
        subject="Quellin",
        old="Pim Sarko",
        relation="mayor",
        paraphrases=("Quellin is governed by", "Who runs Quellin? It is"),
        locality={
            "same_subject": (Probe("The river of Quellin is the", ("Tarn", "Upper Tarn")),),
            "neighbour": (Probe("The mayor of Vashti is"),),
        },
        portability={"two_hop": (Probe("The birthplace of the mayor of Quellin is", ("Ulm",)),)},
        sentence="Oda Brandt is the mayor of Quellin.",
    )
    assert rain == EditRequest("2", "It rained in the valley for", "nine days")
    assert (twice.subject, twice.subject_span, twice.target) == ("Mara", (14, 18), "Lindqvist")
    assert [edit.source.line for edit in (mayor, rain, twice)] == [1, 3, 4]


def test_zsre():
    requests = load_requests(FILES / "zsre.json")
    assert requests[0] == EditRequest(
        id="zsre-0",
        prompt="Which county is Lumen Falls in?",
        target="Ostvik",
        subject="Lumen Falls",
        old="Nordal",
        paraphrases=("In what county can Lumen Falls be found?",),
        locality={"Relation_Specificity": (Probe("The height of Lumen Falls is", ("40 metres",)),)},
        portability={"Reasoning": (Probe("What is the seat of the county of Lumen Falls?", ("Hamre",)),)},
    )
    assert requests[1].portability == {"Subject_Aliasing": (Probe("What voice type is T. Hale?", ("baritone",)),)}
    assert [edit.source.line for edit in requests] == [2, 12]


def test_an_old_answer_that_is_the_target_is_dropped_with_a_note():
    requests = load_requests(FILES / "zsre.json")
    assert requests[1].old is None
    note = requests.notes[0]
    assert (note.line, note.record, note.field) == (12, 2, "ground_truth")
    assert "found only the target itself ('baritone')" in note.reason
    assert len(requests.notes) == 1


def test_wiki_counterfact():
    requests = load_requests(FILES / "wiki_counterfact.json")
    currency = "The currency of the country which Karsk Museum is associated with is"
    kept = "The name of the country which Karsk Museum is associated with, which is not Veld, is"
    assert requests[0] == EditRequest(
        id="wiki_counterfact-0",
        prompt="The name of the country which Karsk Museum is associated with is",
        target="Veld",
        subject="Karsk Museum",
        old="Orrin",
        paraphrases=("Karsk Museum is associated with the country of",),
        locality={
            "Relation_Specificity": (Probe("The name of the founder of Karsk Museum is", ("Ines Roth", "I. Roth")),),
            "Forgetfulness": (Probe(kept, ("Orrin",)),),
        },
        portability={"Reasoning": (Probe(currency, ("velda", "VLD", "crown")),)},
    )
    assert requests[1] == EditRequest(
        "wiki_counterfact-1", "The name of the author of Delve is", "Sun Ray", subject="Delve", old="Ann Pell"
    )
    assert [(edit.source.line, edit.source.record) for edit in requests] == [(1, 1), (1, 2)]


def test_wiki_counterfact_train_split_without_rephrase(tmp_path):
    probe = {"prompt": "The founder of Delve is", "ground_truth": "Jo"}
    record = {"subject": "Delve", "prompt": "The author of Delve is", "target_new": "Sun", "ground_truth": "Ann"}
    requests = load_requests(write(tmp_path, [{**record, "portability": {}, "locality": {"R": [probe]}}]))
    assert requests.format == "KnowEdit wiki_counterfact"
    assert requests[0].locality == {"R": (Probe("The founder of Delve is", ("Jo",)),)}


def test_counterfact_flat_keeps_the_distracting_context():
    requests = load_requests(FILES / "counterfact.json")
    assert requests[0] == EditRequest(
        id="counterfact-0",
        prompt="The mother tongue of Ilka Voss is",
        target="Dutch",
        subject="Ilka Voss",
        old="Czech",
        paraphrases=("Further reading\n\nExternal links. Ilka Voss speaks",),
        locality={"neighborhood": (Probe("Otto Brill is a native speaker of", ("Czech",)),)},
    )
    assert [(edit.id, edit.source.line) for edit in requests] == [("counterfact-0", 2), ("counterfact-7", 12)]


def test_counterfact_rome():
    requests = load_requests(FILES / "counterfact_rome.json")
    assert requests[0] == EditRequest(
        id="counterfact-0",
        prompt="The The band The plays; The began in",
        target="Oslo",
        subject="The",
        subject_span=(13, 16),  # where the template has its mark, not where the word occurs first
        old="Riga",
        relation="P740",
        paraphrases=("Short line. The The come from", "The The was founded in"),
        locality={"neighborhood": (Probe("Low Tide began in", ("Riga",)), Probe("Red Kilim began in", ("Riga",)))},
    )
    assert requests[1].old is None
    assert requests[1].locality == {"neighborhood": (Probe("Ada Krol was born in"),)}


def test_zsre_mend():
    requests = load_requests(FILES / "zsre_mend.json")
    assert requests[0] == EditRequest(
        id="zsre_mend-0",
        prompt="What is made by Brightwater?",
        target="kayaks",
        subject="Brightwater",
        old="lamps",
        paraphrases=("What does Brightwater make?",),
        locality={"nq": (Probe("nq question: who wrote the winter book", ("Tove",)),)},
    )


def test_zsre_mend_without_another_answer_teaches_the_true_one_and_says_so():
    requests = load_requests(FILES / "zsre_mend.json")
    assert (requests[1].target, requests[1].old) == ("male", None)
    assert [(note.record, note.field) for note in requests.notes] == [(2, "alt"), (2, "answers")]
    assert "took the record's own answer 'male' as the target" in str(requests.notes[0])


FLAT = {"case_id": 3, "prompt": "Ilka Voss speaks", "target_new": "Dutch", "subject": "Ilka Voss", "ground_truth": "x"}
ZSRE = {"subject": "Lumen", "target_new": "Ost", "prompt": "Where is Lumen?", "ground_truth": ["a"], "cond": "c"}
ROME = {
    "case_id": 3,
    "requested_rewrite": {"prompt": "{} speaks", "subject": "Ilka", "target_new": {"str": "Dutch"}},
    "paraphrase_prompts": ["p"],
    "neighborhood_prompts": ["n"],
}
MEND = {"subject": "Lumen", "src": "Where is Lumen?", "pred": "a", "alt": "b", "answers": ["a"], "loc": "q"}


@pytest.mark.parametrize(
    ("record", "changes", "field"),
    [
        (FLAT, {"target_new": ""}, "target_new"),
        (FLAT, {"target_new": 3}, "target_new"),
        (FLAT, {"subject": "Otto"}, "subject"),
        (FLAT, {"case_id": None}, "case_id"),
        (FLAT, {"ground_truth": []}, "ground_truth"),
        (FLAT, {"locality_prompt": "p", "locality_ground_truth": 4}, "locality_ground_truth"),
        (ZSRE, {"prompt": None}, "prompt"),
        (ZSRE, {"ground_truth": ["a", 4]}, "ground_truth[1]"),
        (ZSRE, {"locality": {"R": [{"prompt": "p"}]}}, "locality.R[0].ground_truth"),
        (ZSRE, {"portability": {"R": [{"ground_truth": "p"}]}}, "portability.R[0].prompt"),
        (ZSRE, {"locality": {"R": [{"prompt": "p", "ground_truth": [["a", ""]]}]}}, "locality.R[0].ground_truth[0][1]"),
        (ROME, {"requested_rewrite": None}, "requested_rewrite"),
        (ROME, {"requested_rewrite": {}}, "requested_rewrite.target_new"),
        (
            ROME,
            {"requested_rewrite": {"prompt": "Ilka speaks", "subject": "Ilka", "target_new": {"str": "Dutch"}}},
            "requested_rewrite.prompt",
        ),
        (ROME, {"requested_rewrite": {"target_new": {"str": " "}}}, "requested_rewrite.target_new.str"),
        (ROME, {"paraphrase_prompts": [None]}, "paraphrase_prompts[0]"),
        (MEND, {"alt": None}, "alt"),
        (MEND, {"alt": "", "answers": []}, "answers"),
        (MEND, {"alt": "", "answers": None}, "answers"),
        (MEND, {"src": "\t"}, "src"),
    ],
)
def test_a_bad_record_names_the_dataset_s_own_field(record, changes, field, tmp_path):
    check_fault(write(tmp_path, [record, {**record, "case_id": 9, **changes}]), field)


def test_unknown_formats_are_named_with_what_is_known(tmp_path):
    path = write(tmp_path, [{"question": "q", "answer": "a"}])
    with pytest.raises(RequestError, match="found records with the fields answer, question; expected those of one"):
        load_requests(path, on_bad="skip")


def test_one_shared_field_makes_no_format(tmp_path):
    path = write(tmp_path, [{"question": "q", "answer": "a", "subject": "s"}])
    with pytest.raises(RequestError, match="found records with the fields answer, question, subject; expected those"):
        load_requests(path)


def test_a_slip_in_the_first_record_does_not_hide_the_format(tmp_path):
    good = {"id": "a", "prompt": "p", "target": "t"}
    path = write(tmp_path, [{"id": "z", "prompt": "p"}, good])
    with pytest.raises(RequestError, match="record 1, field 'target': found no such field"):
        load_requests(path)


@pytest.mark.parametrize("record", [{"id": "a", "prompt": "p"}, {"prompt": "p", "subject": "p"}, {"target": "t"}])
def test_in_doubt_the_file_is_ours(record, tmp_path):
    with pytest.raises(RequestError, match=r"field '(id|target|prompt)': found no such field"):
        load_requests(write(tmp_path, [record]))
