"""Events before anybody edits: those of the embedded world, those of files, and what they must not ask twice."""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from lightning_edit.data import load_requests
from lightning_edit.data.world import World
from lightning_edit.data.world.documents import Writer
from lightning_edit.data.world.edits import subjects
from lightning_edit.data.world.relations import BY_NAME
from lightning_edit.errors import EditError
from lightning_edit.jobs.events_stream import draw_events, group_events
from lightning_edit.jobs.events_world import KNOWN_SUBJECTS, OPENINGS, event_text, world_events
from lightning_edit.requests import EditRequest

ELKEN = Path(__file__).parents[1] / "fixtures" / "requests" / "elken.json"


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def told(world: World) -> list[EditRequest]:
    return world_events(world, 60, seed=3)


def test_texts_have_the_form_that_the_model_was_taught(world: World) -> None:
    writer = Writer(world, random.Random(5))
    for _ in range(40):
        text, facts = writer.event()
        opening = next(one for one in OPENINGS if text.startswith(f"{one} "))
        assert event_text(opening, facts[0].subject, facts) == text


def test_an_event_is_two_facts_in_one_text(told: list[EditRequest]) -> None:
    events = group_events(told)
    assert len(events) == 60
    for event in events:
        first, second = event.requests
        assert (first.subject, first.sentence, first.group) == (second.subject, second.sentence, event.id)
        assert first.relation != second.relation
        assert not first.locality
        assert not first.portability
        for request in event.requests:
            assert f"is now {request.target}" in str(request.sentence)
            assert request.old != request.target
            questions = [text.format(s=request.subject) for text in BY_NAME[str(request.relation)].questions]
            asked = [re.fullmatch("Question: (.+) Answer:", text) for text in (request.prompt, *request.paraphrases)]
            assert len({match[1] for match in asked if match}) == 2
            assert {match[1] for match in asked if match} <= set(questions)


def test_of_whom_the_model_knows_all_else_stays_and_of_a_newcomer_all_else_is_unknown(
    world: World, told: list[EditRequest]
) -> None:
    untouched = set(subjects(world, 3)[1])
    for index, event in enumerate(group_events(told)):
        last, about = event.requests[-1], world.about(str(event.requests[-1].subject))
        facts = {fact.relation.name: fact.value for fact in about}
        assert bool(facts) == (index % 2 == 0)
        changed = {request.relation for request in event.requests}
        if facts:
            stays = sorted(value for name, value in facts.items() if name not in changed)
            assert sorted(probe.answers[0] for probe in last.locality.get("unaffected", ())) == stays
            assert "unknown" not in last.portability
        else:
            assert {probe.answers for probe in last.portability["unknown"]} == {("unknown",)}
            assert "unaffected" not in last.locality
        for probe in last.locality["neighborhood"]:
            assert any(name in probe.prompt for name in untouched)


def test_two_hops_lead_over_a_new_fact_to_one_that_no_event_changes(world: World) -> None:
    events = group_events(world_events(world, 2 * KNOWN_SUBJECTS, seed=1))
    changed = {request.subject for event in events for request in event.requests}
    probes = 0
    for event in events:
        values = [fact for request in event.requests for fact in world.about(request.target)]
        for probe in event.requests[-1].portability.get("inferred", ()):
            assert any(fact.value == probe.answers[0] and fact.subject not in changed for fact in values)
            assert any(BY_NAME[str(r.relation)].clause.format(s=r.subject) in probe.prompt for r in event.requests)
            probes += 1
    assert probes > 100


def test_statements_are_taught_with_all_questions_held_out(world: World, told: list[EditRequest]) -> None:
    stated = group_events(world_events(world, 60, 3, "statements"))
    for event, pairs in zip(stated, group_events(told), strict=True):
        questions = [(text, (one.target,)) for one in pairs.requests for text in (one.prompt, *one.paraphrases)]
        last, asked = event.requests[-1], dict(event.requests[-1].portability)
        assert [(probe.prompt, probe.answers) for probe in asked.pop("stated")] == questions
        assert (asked, last.locality) == (pairs.requests[-1].portability, pairs.requests[-1].locality)
        for request, pair in zip(event.requests, pairs.requests, strict=True):
            assert (request.target, request.sentence, request.paraphrases) == (pair.target, pair.sentence, ())
            phrasings = BY_NAME[str(request.relation)].statements
            beginnings = [text.format(s=request.subject) for text in phrasings]
            assert request.prompt in [text[0].upper() + text[1:] for text in beginnings]


def test_fewer_events_are_the_first_of_more_and_seeds_differ(world: World, told: list[EditRequest]) -> None:
    assert world_events(world, 7, seed=3) == told[:14]
    assert world_events(world, 7, seed=4)[0].subject != told[0].subject
    with pytest.raises(EditError, match="found 0 events"):
        world_events(world, 0)
    with pytest.raises(EditError, match="found 301 events, expected 1 to 300"):
        world_events(world, 301)


def test_a_file_of_elken_makes_its_events() -> None:
    drawn = draw_events(str(ELKEN), 2)
    assert [event.id for event in drawn.events] == ["elken-0", "elken-2"]
    assert [request for event in drawn.events for request in event.requests] == list(load_requests(ELKEN))
    assert [event.id for event in draw_events(str(ELKEN), 2, seed=4, choice="random").events] in (
        ["elken-0", "elken-2"],
        ["elken-2", "elken-0"],
    )
    with pytest.raises(EditError, match=r"holds 2 events, 0 of them in contradiction.* expected at least 3"):
        draw_events(str(ELKEN), 3)


def question(text: str, answer: str, kind: int = 0) -> dict[str, Any]:
    return {"question": text, "subject": {"name": "Korr"}, "answer": {"name": answer, "alias": ["alias"]}, "type": kind}


def test_what_contradicts_an_earlier_event_is_left_out(tmp_path: Path) -> None:
    asked = [
        [question("Who rules Korr?", "Oda")],
        [question("Who built Korr?", "Pim"), {**question("Who rules  korr?", "Nils"), "answer": {"name": "Nils"}}],
        [question("Who rules Korr?", "ODA")],
        [question("Where is Korr?", "Veld")],
    ]
    asked[0][0]["answer"] = {"name": "Oda"}
    records = [
        {"event": f"News {index}.", "event_type": "x", "tendency": {}, "fact": {"qas": own, "local_qas": []}}
        for index, own in enumerate(asked)
    ]
    file = tmp_path / "elken.json"
    file.write_text(json.dumps(records))
    drawn = draw_events(str(file), 3)
    assert [event.id for event in drawn.events] == ["elken-0", "elken-2", "elken-3"]
    assert drawn.notes == ["left out, as they contradict earlier events: elken-1"]
    with pytest.raises(EditError, match="1 of them in contradiction"):
        draw_events(str(file), 4)


def test_a_request_without_a_group_is_an_event_by_itself() -> None:
    requests = [
        EditRequest("a", "p", "t"),
        EditRequest("b", "q", "t", group="a"),
        EditRequest("c", "r", "t", group="a"),
    ]
    assert [[request.id for request in event.requests] for event in group_events(requests)] == [["a"], ["b", "c"]]


@pytest.mark.parametrize(("file", "events"), [("test.json", 326), ("train.json", 347)])
def test_real_events_of_elken_agree_with_each_other_once_drawn(file: str, events: int, shared_data: Path) -> None:
    path = shared_data / "elken" / file
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    assert len(group_events(load_requests(path))) == events
    drawn = draw_events(str(path), 250).events
    right: dict[str, set[str]] = {}
    for event in drawn:
        for prompt, answers in event.questions():
            names = {answer.casefold() for answer in answers}
            assert right.get(prompt.casefold(), names) & names
            right.setdefault(prompt.casefold(), set()).update(names)
