"""Datasets whose records give several edits, or are known here only by what is written of them: read to the letter."""

import pytest

from lightning_edit.data import load_requests
from lightning_edit.data.event import Event, EventQuestion, Triple, event_edits, event_requests
from lightning_edit.errors import RequestError
from lightning_edit.requests import EditRequest, Probe
from tests.requests.files import FILES, check_fault, records, write


def test_elken_teaches_what_the_event_states_and_holds_out_the_rest():
    requests = load_requests(FILES / "elken.json")
    text = "Ilka Voss has left Harrow Rovers for FC Ostvik."
    first, last = requests[:2]
    assert first == EditRequest(
        id="elken-0-0",
        prompt="Which club does Ilka Voss play for?",
        target="FC Ostvik",
        subject="Ilka Voss",
        sentence=text,
        target_aliases=("Ostvik",),
        group="elken-0",
    )
    assert last == EditRequest(
        id="elken-0-1",
        prompt="Which club did Ilka Voss leave?",
        target="Harrow Rovers",
        subject="Ilka Voss",
        locality={"unaffected": (Probe("What is the gender of Ilka Voss?", ("female", "woman")),)},
        portability={
            "inferred": (Probe("Which city does Ilka Voss live in?", ("Ostvik", "Ostvik by the Sea")),),
            "unknown": (Probe("What jersey number does Ilka Voss wear?", ("unknown",)),),
        },
        sentence=text,
        group="elken-0",
    )


def test_elken_events_that_state_nothing_teach_one_answer_and_say_so():
    requests = load_requests(FILES / "elken.json")
    dismissed = requests[2]
    assert (dismissed.id, dismissed.group) == ("elken-2-0", "elken-2")
    assert (dismissed.prompt, dismissed.target) == ("What position does Nils Ferrow hold?", "unknown")
    assert dismissed.portability == {"unknown": (Probe("Which city does Nils Ferrow work in?", ("unknown",)),)}
    assert [(note.record, note.field) for note in requests.notes] == [(2, "fact.qas"), (3, "fact.qas")]
    assert "found no question about a fact" in requests.notes[0].reason
    assert "the edit teaches the answer 'unknown' to 'What position does Nils Ferrow hold?'" in requests.notes[1].reason


def test_an_inferred_answer_is_taught_before_an_unknown_one():
    unknown = EventQuestion("When?", ("unknown",), "unknown")
    inferred = [EventQuestion(f"Where {n}?", ("there",), "inferred") for n in range(2)]
    stated = EventQuestion("Who?", ("Oda",), "stated")
    event = Event("e", "Something happened.", (unknown, *inferred))
    assert event_edits(event) == (inferred[0],)
    assert event_edits(Event("e", "Something happened.", (unknown, *inferred, stated))) == (stated,)
    assert event_edits(Event("e", "Something happened.")) == ()


def test_the_probes_of_an_event_stand_at_its_last_edit():
    event = Event("e", "Something happened.", (EventQuestion("Who?", ("Oda",), "stated"),), (Probe("q", ("a",)),))
    triples = [Triple(f"Thing {n} is", "t", f"Thing {n}") for n in range(3)]
    requests = event_requests(event, triples, event.questions, "x")
    assert [request.id for request in requests] == ["e-x0", "e-x1", "e-x2"]
    assert [len(request.portability) for request in requests] == [0, 0, 1]
    assert [len(request.locality) for request in requests] == [0, 0, 1]
    assert requests[2].portability == {"stated": (Probe("Who?", ("Oda",)),)}
    assert {(request.sentence, request.group) for request in requests} == {("Something happened.", "e")}
    assert event_requests(event, [], event.questions) == ()


def test_mquake_makes_one_request_of_every_edit_of_a_case():
    requests = load_requests(FILES / "mquake.json")
    assert requests[0] == EditRequest(
        id="mquake-4-0",
        prompt="Brightwater was founded by",
        target="Oda Brandt",
        subject="Brightwater",
        subject_span=(0, 11),
        old="Pim Sarko",
        relation="P112",
        paraphrases=("Who founded Brightwater?",),
        target_aliases=("O. Brandt",),
        group="mquake-4",
    )
    answers = ("Hamre", "City of Hamre")
    assert requests[1] == EditRequest(
        id="mquake-4-1",
        prompt="Oda Brandt is a citizen of",
        target="Veld",
        subject="Oda Brandt",
        subject_span=(0, 10),
        old="Orrin",
        relation="P27",
        paraphrases=("What is the country of citizenship of Oda Brandt?",),
        locality={"unedited_hop": (Probe("What is the capital of Veld?", answers),)},
        portability={"multi_hop": tuple(Probe(text, answers) for text in records("mquake.json")[0]["questions"])},
        group="mquake-4",
    )


def test_mquake_edits_that_confirm_what_is_true_have_no_old_answer():
    requests = load_requests(FILES / "mquake.json")
    assert (requests[2].id, requests[2].target, requests[2].old) == ("mquake-9-0", "Sun Ray", None)
    assert [note.field for note in requests.notes] == ["requested_rewrite[0].target_true"]


def test_mquake_without_single_questions_has_no_unedited_hop(tmp_path):
    case = records("mquake.json")[0]
    del case["requested_rewrite"][0]["question"]
    requests = load_requests(write(tmp_path, [case]))
    assert requests[0].paraphrases == requests[0].target_aliases == ()
    assert requests[1].locality == {}


def test_qaedit():
    requests = load_requests(FILES / "qaedit.json")
    assert requests[0] == EditRequest(
        id="qaedit-12",
        prompt="who built the first mill at lumen falls",
        target="Otto Brill",
        subject="lumen falls",
        paraphrases=("Which person built the first mill at Lumen Falls?",),
        locality={
            "nq": (
                Probe("when does the winter fair open", ("1 December",)),
                Probe("who wrote the winter book", ("Tove",)),
            )
        },
    )
    assert requests[1].locality == {}


def test_wise_hallucination():
    requests = load_requests(FILES / "wise_hallucination.json")
    assert requests[0] == EditRequest(
        id="wise_hallucination-0",
        prompt="This is a Wikipedia passage about ilka voss. Ilka Voss (born 1971) is a Veldish cellist.",
        target="She first played in Hamre.",
        subject="ilka voss",
        locality={"unrelated": (Probe("The fair opens on Monday. Bring a lante", ("rn and warm shoes.",)),)},
    )
    assert requests[0].subject_span == (34, 43)
    assert requests[1].locality["unrelated"][0].answers == ()
    assert [(note.record, note.field) for note in requests.notes] == [(2, "locality_ground_truth")]


QUESTION = {"question": "Who runs Quellin?", "subject": {"name": "Quellin"}, "answer": {"name": "Oda"}, "type": 0}
ELKEN = {"event": "Oda runs Quellin.", "event_type": "x", "fact": {"qas": [QUESTION], "local_qas": []}, "tendency": {}}
HOP = {"prompt": "{} is run by", "subject": "Quellin", "target_new": {"str": "Oda"}, "question": "Who runs Quellin?"}
MQUAKE = {"case_id": 1, "requested_rewrite": [HOP], "questions": ["q"], "new_answer": "a", "new_single_hops": []}
QAEDIT = {"id": 1, "source": "NQ", "prompt": "who runs quellin", "target": "Oda", "subject": "quellin", "rephrase": "r"}
WISE = {"prompt": "About oda.", "target_new": "She runs.", "subject": "oda", "locality_prompt": "p"}


def fact(**changes):
    return {"fact": {"qas": [{**QUESTION, **changes}], "local_qas": []}}


@pytest.mark.parametrize(
    ("record", "changes", "field"),
    [
        (ELKEN, {"event": " "}, "event"),
        (ELKEN, {"fact": None}, "fact"),
        (ELKEN, {"fact": {"qas": {}}}, "fact.qas"),
        (ELKEN, {"fact": {"qas": [4]}}, "fact.qas[0]"),
        (ELKEN, {"fact": {"qas": [], "local_qas": [{"question": "q"}]}}, "fact.local_qas[0].answer"),
        (ELKEN, fact(type=None), "fact.qas[0].type"),
        (ELKEN, fact(type=2), "fact.qas[0].type"),
        (ELKEN, fact(type=True), "fact.qas[0].type"),
        (ELKEN, fact(answer={"name": ""}), "fact.qas[0].answer.name"),
        (ELKEN, fact(answer={"name": "a", "alias": "b"}), "fact.qas[0].answer.alias"),
        (ELKEN, fact(answer={"name": "a", "alias": [""]}), "fact.qas[0].answer.alias[0]"),
        (ELKEN, fact(subject={"id": "NA"}), "fact.qas[0].subject.ent2name"),
        (ELKEN, fact(subject={"name": "Vashti"}), "subject"),
        (MQUAKE, {"requested_rewrite": []}, "requested_rewrite"),
        (MQUAKE, {"requested_rewrite": [{**HOP, "prompt": "Quellin"}]}, "requested_rewrite[0].prompt"),
        (MQUAKE, {"requested_rewrite": [{**HOP, "target_new": {}}]}, "requested_rewrite[0].target_new.str"),
        (MQUAKE, {"new_answer": None}, "new_answer"),
        (MQUAKE, {"new_single_hops": [{"answer": "a"}]}, "new_single_hops[0].question"),
        (MQUAKE, {"questions": "q"}, "questions"),
        (QAEDIT, {"id": True}, "id"),
        (QAEDIT, {"target": 4}, "target"),
        (QAEDIT, {"locality": [{"loc": "q"}]}, "locality[0].loc_ans"),
        (WISE, {"target_new": None}, "target_new"),
        (WISE, {"locality_ground_truth": 4}, "locality_ground_truth"),
    ],
)
def test_a_bad_record_names_the_dataset_s_own_field(record, changes, field, tmp_path):
    good = {**record, "case_id": 8} if "case_id" in record else {**record, "id": 8} if "id" in record else record
    check_fault(write(tmp_path, [good, {**record, **changes}]), field)


def test_a_fault_in_one_edit_of_an_event_costs_the_whole_event(tmp_path):
    second = {**QUESTION, "question": "Who owns Quellin?", "subject": {"name": "Vashti"}}
    bad = {**ELKEN, "fact": {"qas": [QUESTION, second], "local_qas": []}}
    requests = load_requests(write(tmp_path, [bad, ELKEN]), on_bad="skip")
    assert [request.id for request in requests] == ["elken-1-0"]
    assert [finding.record for finding in requests.skipped] == [1]


def test_a_case_twice_is_a_fault_and_leaves_the_first_one(tmp_path):
    path = write(tmp_path, [MQUAKE, MQUAKE])
    with pytest.raises(RequestError, match=r"found the id 'mquake-1-0' a second time"):
        load_requests(path)
    assert len(load_requests(path, on_bad="skip")) == 1
