"""Events as triples by a language model: what is asked, what is taken for a triple, and what a bad reply costs."""

import json
from pathlib import Path

import pytest

from lightning_edit.data import load_requests
from lightning_edit.data.event import Event, EventQuestion, Triple
from lightning_edit.data.events import EventFault, convert_events, parse_triples, read_events
from lightning_edit.errors import RequestError
from lightning_edit.llm import Endpoint, Malformed, Reply
from lightning_edit.probes import Probe
from tests.judges.scribe import Scribe
from tests.judges.stub import serve, status

FILES = Path(__file__).parents[1] / "fixtures" / "requests"
ONE = "Subject: Oda Brandt\nPrompt: The town that Oda Brandt governs is\nTarget: Quellin"
TWO = f"{ONE}\n\nSubject: Quellin\nPrompt: The year in which Quellin chose its mayor is\nTarget: 2031\n"
TRIPLES = (
    Triple("The town that Oda Brandt governs is", "Quellin", "Oda Brandt"),
    Triple("The year in which Quellin chose its mayor is", "2031", "Quellin"),
)
QUELLIN = Event(
    "quellin",
    "In 2031 Quellin made Oda Brandt its mayor.",
    (EventQuestion("Who governs Quellin?", ("Oda Brandt",), "stated", "Quellin"),),
    (Probe("What is the river of Quellin?", ("Tarn",)),),
)


def block(subject="Oda", prompt="Oda lives in", target="Lant"):
    return f"Subject: {subject}\nPrompt: {prompt}\nTarget: {target}"


@pytest.mark.parametrize(
    "text",
    [
        TWO,
        TWO.replace("\n\n", "\n"),
        f"```\n{TWO.strip()}\n```",
        f"```text\n{TWO.strip()}\n```",
        f"<think>x</think>{TWO}",
        TWO.replace("\n", "\r\n"),
        TWO.replace("Subject: ", "Subject:   "),
    ],
)
def test_triples_are_read_whatever_stands_between_them(text):
    assert parse_triples(text) == TRIPLES


def test_a_value_may_hold_a_colon():
    assert parse_triples(block(target="12:30")) == (Triple("Oda lives in", "12:30", "Oda"),)


@pytest.mark.parametrize("text", ["NONE", " NONE\n", "<think>hm</think>NONE"])
def test_no_fact(text):
    assert parse_triples(text) == ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "found 0 lines"),
        ("none of these", "found 1 lines"),
        ("Here they are:\n" + ONE, "found 4 lines"),
        (ONE + "\nSubject: Quellin", "found 4 lines"),
        (ONE.replace("Target:", "Target New:"), "expected 'Target: ...', found 'Target New: Quellin'"),
        (ONE.replace("Subject:", "subject:"), "expected 'Subject: ...'"),
        (ONE.replace("Prompt: ", "Prompt "), "expected 'Prompt: ...'"),
        ("\n".join(reversed(ONE.split("\n"))), "expected 'Subject: ...', found 'Target: Quellin'"),
        (block(target=" "), "expected 'Target: ...', found 'Target:'"),
        (block(subject="Oda Brandt"), "expected the subject 'Oda Brandt' in the prompt 'Oda lives in'"),
        (block(prompt="Oda lives in LANT"), "expected a prompt without its target"),
        (block() + "\n" + block(target="Ulm"), "expected each prompt once, found 'oda lives in' 2 times"),
        ("\n".join(block(prompt=f"Oda {n} is") for n in range(13)), "expected at most 12 triples, found 13"),
    ],
)
def test_what_is_no_list_of_triples(text, reason):
    with pytest.raises(Malformed) as caught:
        parse_triples(text)
    assert reason in str(caught.value)


def test_an_event_becomes_edits_with_its_questions_as_probes():
    conversion = convert_events([QUELLIN], Scribe(lambda prompt: TWO))
    first, last = conversion.requests
    assert (first.id, first.prompt, first.target, first.subject) == ("quellin-t0", *vars_of(TRIPLES[0]))
    assert (last.id, last.prompt, last.target, last.subject) == ("quellin-t1", *vars_of(TRIPLES[1]))
    assert {(edit.group, edit.sentence) for edit in conversion.requests} == {("quellin", QUELLIN.text)}
    assert (first.portability, first.locality) == ({}, {})
    assert last.portability == {"stated": (Probe("Who governs Quellin?", ("Oda Brandt",)),)}
    assert last.locality == {"unaffected": (Probe("What is the river of Quellin?", ("Tarn",)),)}
    assert conversion.faults == conversion.notes == []
    assert conversion.report() == "2 edits from 1 events by scribe, 0 events without"


def vars_of(triple):
    return triple.prompt, triple.target, triple.subject


def test_what_is_asked_ends_with_the_event_on_one_line():
    scribe = Scribe(lambda prompt: ONE)
    convert_events([" Oda Brandt\n  governs {Quellin}. "], scribe)
    assert scribe.asked[0].endswith("\nReport: Oda Brandt governs {Quellin}.")


def test_a_bad_event_is_listed_and_costs_no_other():
    replies = {"good": TWO, "talks": "Sure! Here you are.", "silent": Reply(None, "status 500"), "empty": "NONE"}
    texts = [f"Quellin {word} in 2031." for word in replies]

    def reply(prompt):
        return next(said for word, said in replies.items() if f"Report: Quellin {word} in" in prompt)

    conversion = convert_events(texts, Scribe(reply, backwards=True))
    assert [edit.id for edit in conversion.requests] == ["event-0-t0", "event-0-t1"]
    assert [fault.event for fault in conversion.faults] == ["event-1", "event-2", "event-3"]
    assert conversion.faults[0].reason.startswith("malformed reply, 2 times over: expected blocks of three lines")
    assert conversion.faults[1:] == [
        EventFault("event-2", texts[2], "status 500"),
        EventFault("event-3", texts[3], "scribe finds no fact in it"),
    ]
    assert conversion.report().split("\n")[0] == "2 edits from 1 events by scribe, 3 events without"
    assert "event-2: status 500" in conversion.report()


def test_a_target_that_the_event_does_not_mention_is_noted():
    conversion = convert_events(["Quellin has a new mayor."], Scribe(lambda prompt: TWO))
    assert len(conversion.requests) == 2
    (note,) = conversion.notes
    assert note.reason.startswith("the target '2031' of 'The year in which")


def test_a_reminder_repairs_a_reply():
    scribe = Scribe(lambda prompt: ONE if "blocks of three lines, 'Subject" in prompt else f"Sure!\n{ONE}")
    conversion = convert_events(["Oda Brandt governs Quellin."], scribe)
    assert len(conversion.requests) == 1
    assert len(scribe.asked) == 2


def test_edits_are_saved_and_read_again_and_a_second_run_asks_nobody(tmp_path):
    first = convert_events([QUELLIN], Scribe(lambda prompt: TWO), cache=tmp_path / "replies.sqlite")
    first.save(tmp_path / "edits.jsonl")
    assert load_requests(tmp_path / "edits.jsonl") == first.requests
    silent = Scribe(lambda prompt: AssertionError("nobody should ask"))
    assert convert_events([QUELLIN], silent, cache=tmp_path / "replies.sqlite").requests == first.requests


def test_an_event_without_text_is_refused():
    with pytest.raises(RequestError, match="event event-1: found no text"):
        convert_events(["Oda Brandt governs Quellin.", " "], Scribe(lambda prompt: ONE))


def test_over_an_endpoint():
    def script(number, prompt):
        return status(500) if "Report: It rained" in prompt else TWO

    with serve(script) as stub:
        events = ["In 2031 Quellin made Oda Brandt its mayor.", "It rained."]
        conversion = convert_events(events, Endpoint(stub.url, "small", retries=1, backoff=0.001))
    assert [edit.group for edit in conversion.requests] == ["event-0", "event-0"]
    assert [(fault.event, fault.reason) for fault in conversion.faults] == [("event-1", "status 500, 2 times over")]


def test_events_of_elken():
    first, second = read_events(FILES / "elken.json")
    assert (first.id, first.text) == ("elken-0", "Ilka Voss has left Harrow Rovers for FC Ostvik.")
    assert [question.kind for question in first.questions] == ["stated", "stated", "unknown", "inferred"]
    assert [probe.prompt for probe in first.unaffected] == ["What is the gender of Ilka Voss?"]
    assert second.id == "elken-2"  # the event between has no factual question


def test_only_elken_holds_events(tmp_path):
    with pytest.raises(RequestError, match="found KnowEdit ZsRE, expected ELKEN"):
        read_events(FILES / "zsre.json")
    broken = tmp_path / "elken.json"
    broken.write_text(json.dumps([json.loads((FILES / "elken.json").read_text())[0], 4]))
    with pytest.raises(RequestError, match="record 2: found the number 4, expected an object"):
        read_events(broken)


@pytest.mark.parametrize(("file", "events", "questions"), [("test.json", 326, 1_341), ("train.json", 347, 971)])
def test_the_real_events_of_elken(file, events, questions, shared_data):
    path = shared_data / "elken" / file
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    found = read_events(path)
    assert (len(found), sum(len(event.questions) for event in found)) == (events, questions)
    conversion = convert_events(found[:5], Scribe(lambda prompt: block()))
    asked = [probe for edit in conversion.requests for probes in edit.portability.values() for probe in probes]
    assert len(conversion.requests) == 5
    assert len(asked) == sum(len(event.questions) for event in found[:5])
