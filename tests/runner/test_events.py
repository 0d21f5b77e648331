"""`leaderboard_events` and `convert_events`, small: events of a file, triples of an assistant, cells, the report."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_edit.cli import main
from lightning_edit.data import load_requests
from lightning_edit.editors.memit import MEMIT
from lightning_edit.editors.report import EditReport
from lightning_edit.editors.retrieval.ike import ICE
from lightning_edit.errors import EditError, RequestError
from lightning_edit.jobs.board import mark
from lightning_edit.jobs.events import events
from lightning_edit.jobs.events_arena import EventArena, EventLoad, EventMeasuring
from lightning_edit.jobs.events_convert import convert_events
from lightning_edit.jobs.events_stream import EventEdits, draw_events
from lightning_edit.jobs.inputs import gather_moments
from lightning_edit.jobs.leaderboard_entries import Entry
from lightning_edit.jobs.stage import load_model
from lightning_edit.requests import EditRequest
from lightning_edit.runner.job import find_job, job_parser
from lightning_edit.runner.recipe import load_recipe
from tests.judges.stub import serve
from tests.runner.conftest import FACTS, OTHERS, PROMPT

STRONG: dict[str, Any] = {"layers": [1], "clamp": 6.0, "steps": 40, "weight_decay": 0.0, "prior_weight": 1.0}
SMALL = {"select": "{facts} {question}", "answer": "{fact} {prompt}"}  # all that a context of 128 tokens has room for
EDITORS: dict[str, dict[str, Any]] = {
    "memit": {"editor": "memit", **STRONG},
    "ice": {"editor": "ice", "templates": SMALL},
}
LOADS = [EventLoad(1, 2), EventLoad(3)]


@pytest.fixture(scope="module")
def elken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four events in ELKEN's layout, each with a stated, an inferred and an open question, and one that stays."""
    records = []
    for (subject, _), new, (other, old) in zip(FACTS, OTHERS, FACTS[1:] + FACTS[:1], strict=True):
        who = {"id": "NA", "name": subject}

        def qa(text: str, answer: str, kind: int, who: dict[str, str] = who) -> dict[str, Any]:
            return {"question": text, "subject": who, "answer": {"name": answer, "alias": [answer]}, "type": kind}

        mother = PROMPT.format(subject)
        asked = [qa(mother, new, 0), qa(f"They say that {mother}", new, 1), qa(f"Why is {mother}", "unknown", 0)]
        stays = [qa(f"They say that {PROMPT.format(other)} is", old, 0)]
        event = f"The mother of {subject} is now {new}."
        records.append({"event": event, "event_type": "x", "fact": {"qas": asked, "local_qas": stays}, "tendency": {}})
    file = tmp_path_factory.mktemp("elken") / "elken.json"
    file.write_text(json.dumps(records))
    return file


class Refusing(MEMIT):
    """An editor that refuses every edit."""

    def edit(self, *_: Any, **__: Any) -> EditReport:
        raise EditError("not today")


class Failing(ICE):
    """An editor that breaks."""

    def edit(self, *_: Any, **__: Any) -> EditReport:
        raise ZeroDivisionError("broken")


def play(folder: Path, elken: Path, output: Path, editors: dict[str, dict[str, Any]] | None = None, **more: Any) -> Any:
    return events(output, editors or EDITORS, None, str(folder), str(elken), LOADS, device="cpu", **more)


def test_it_runs_small_and_shows_what_it_promises(model_folder: Path, elken: Path, tmp_path: Path) -> None:
    options = ["--model", str(model_folder), "--requests", str(elken), "--editors", json.dumps(EDITORS)]
    sizes = ["--loads", "[{events: 1, groups: 2}, {events: 3}]", "--measuring.latency", "1"]
    assert main(["run", "leaderboard_events", "--output", str(tmp_path), *options, *sizes]) == 0
    rows = {row["run"]: row for row in json.loads((tmp_path / "summary.json").read_text())["rows"]}
    assert list(rows) == ["unedited", "memit", "ice"]
    assert (rows["unedited"]["events"], rows["unedited"]["reliability"], rows["unedited"]["locality"]) == (0, 0.0, 1.0)
    for label in ("memit", "ice"):
        row = rows[label]
        assert (row["events"], row["asked_events"], row["edits"], row["refused_events"]) == (3, 3, 3, 0)
        assert row["seconds_per_event"] > 0
        assert row["latency_ratio"] > 0
        assert row["event_accuracy"] == 0.0  # nobody taught it to say unknown
        assert {"held_out_accuracy", "abstention", "single_question_accuracy", "portability/inferred"} <= row.keys()
    protocol = "greedy-24, to sentence, exact_match, by probes, locality unedited"
    assert [row["protocol"] for row in rows.values()] == [protocol] * 3
    assert "single_protocol" not in rows["memit"]
    assert rows["memit"]["single_reliability"] > 0
    assert rows["memit"]["single_stated_event_accuracy"] == rows["memit"]["single_reliability"]
    with (tmp_path / "events.csv").open(newline="") as stream:
        cells = list(csv.DictReader(stream))
    assert {cell["protocol"] for cell in cells} == {protocol}
    assert [(cell["run"], cell["events"]) for cell in cells] == [
        ("unedited", "0"), ("memit", "1"), ("ice", "1"), ("memit", "3"), ("ice", "3"),
    ]  # fmt: skip
    report = (tmp_path / "report.md").read_text()
    assert "| method | Port. (1) | Loc. (1) | Avg. (1) | Port. (3) | Loc. (3) | Avg. (3) |" in report
    assert "## By number of events" in report
    assert {file.name for file in tmp_path.glob("*.png")} == {"events.png", "unknown.png", "cost.png"}
    assert (tmp_path / "report.html").read_text().count('src="data:image/png;base64,') == 3


def test_text_memories_are_told_the_text_and_others_the_pairs(model_folder: Path, elken: Path) -> None:
    drawn = draw_events(str(elken), 4).events
    arena = EventArena(load_model(str(model_folder), "float32", "cpu"), drawn, EventMeasuring())
    seen: list[tuple[list[str], list[str]]] = []

    class Watching(ICE):
        def edit(self, *args: Any, **options: Any) -> EditReport:
            report = super().edit(*args, **options)
            seen.append((self.sentences, [request.prompt for request in self.requests]))
            return report

    before = mark(arena.lm)
    editor = Watching(templates=SMALL)
    arena.play(editor, EventLoad(2, 2))
    texts = [f"The mother of {subject} is now {new}." for (subject, _), new in zip(FACTS, OTHERS, strict=True)]
    prompts = [PROMPT.format(subject) for subject, _ in FACTS]
    assert [told for told, _ in seen] == [texts[:1], texts[:2], texts[2:3], texts[2:]]
    assert [asked for _, asked in seen] == [prompts[:1], prompts[:2], prompts[2:3], prompts[2:]]
    assert not editor.sentences
    assert torch.equal(mark(arena.lm), before)


def test_an_event_is_handed_over_at_once_or_bit_by_bit(model_folder: Path) -> None:
    requests = tuple(EditRequest(f"r{place}", f"{place} of them is", "known", group="e") for place in range(3))
    arena = EventArena(load_model(str(model_folder), "float32", "cpu"), [EventEdits("e", requests)], EventMeasuring())
    sizes: list[int] = []

    class Counting(ICE):
        def edit(self, module: object, requests: Any, *args: Any, **options: Any) -> EditReport:
            sizes.append(len(requests))
            return super().edit(module, requests, *args, **options)

    for batch in (None, 1, 2):
        arena.play(Counting(templates=SMALL), EventLoad(), batch)
    assert sizes == [3, 1, 1, 1, 2, 1]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("memit", {**STRONG, "aligned": False, "steps": 3}),
        ("ft_l", {"layers": [1], "steps": 3}),
        ("lora", {"layers": [1], "steps": 3, "rank": 2}),
        ("grace", {"layer": 1, "steps": 3}),
        ("wise", {"layer": 1, "steps": 2, "texts": ["The river is long.", "A city by the sea."]}),
        ("hybrid", {"editor": "ft_m", "editor_options": {"layers": [1], "steps": 3}, "memory": {"templates": SMALL}}),
    ],
)
def test_every_group_starts_from_the_clean_model(
    name: str, options: dict[str, Any], model_folder: Path, elken: Path
) -> None:
    lm = load_model(str(model_folder), "float32", "cpu")
    arena = EventArena(lm, draw_events(str(elken), 4).events, EventMeasuring())
    before, editor = mark(lm), Entry.read("it", {"editor": name, "options": options}, {}).declared.build()
    moments = gather_moments(lm, str(elken), [1], list(arena.events[0].requests), None, None, 400)
    editor.prepare(lm, statistics=moments if editor.needs_statistics else None)
    rows = [arena.play(editor, EventLoad(2, 2))[0] for _ in range(2)]
    timed = ("seconds_per_event", "cpu_seconds_per_event")
    first, again = ({key: value for key, value in row.items() if key not in timed} for row in rows)
    assert first == again
    assert first["refused_events"] == 0
    assert not editor.requests
    editor.detach(lm)
    assert torch.equal(mark(lm), before)


def test_finished_cells_are_not_played_again(
    model_folder: Path, elken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = play(model_folder, elken, tmp_path, minutes=0)
    assert [result.row for result in first] == [{}, {}, {}]
    assert first[0].notes[-2].startswith("5 cells were not played yet, run again to go on: unedited (0), memit (1)")
    whole = play(model_folder, elken, tmp_path)
    played: list[str] = []
    alone = EventArena.play

    def count(arena: EventArena, editor: Any, load: EventLoad, batch: int | None) -> Any:
        played.append(f"{type(editor).__name__}-{load.events}")
        return alone(arena, editor, load, batch)

    monkeypatch.setattr(EventArena, "play", count)
    again = play(model_folder, elken, tmp_path)
    assert played == []
    assert [result.row for result in again] == [result.row for result in whole]
    (tmp_path / "cells" / "ice-3.json").unlink()
    play(model_folder, elken, tmp_path)
    assert played == ["ICE-3"]
    changed = {**EDITORS, "ice": {**EDITORS["ice"], "top_k": 2}}
    play(model_folder, elken, tmp_path, changed)
    assert played == ["ICE-3", "ICE-1", "ICE-3"]
    play(model_folder, elken, tmp_path, changed, measuring=EventMeasuring(budget=2))
    assert played[3:] == ["MEMIT-1", "ICE-1", "MEMIT-3", "ICE-3"]
    apart = {**changed, "memit": {**EDITORS["memit"], "batch": 1}}
    play(model_folder, elken, tmp_path, apart, measuring=EventMeasuring(budget=2))
    assert played[7:] == ["MEMIT-1", "MEMIT-3"]


def test_a_refused_event_counts_as_told_and_a_broken_editor_costs_its_own_cells(
    model_folder: Path, elken: Path, tmp_path: Path
) -> None:
    here = f"{__name__}."
    editors = {"no": {"editor": f"{here}Refusing", **STRONG}, "broken": {"editor": f"{here}Failing"}, **EDITORS}
    clean, refusing, broken, memit, _ = play(model_folder, elken, tmp_path, editors)
    assert (refusing.row["refused_events"], refusing.row["reliability"], refusing.row["locality"]) == (3, 0.0, 1.0)
    assert "3 events: elken-0 was refused: not today" in refusing.notes
    assert broken.row == {"failed_cells": 2}
    assert broken.errors == [f"{count} events: ZeroDivisionError: broken" for count in (1, 3)]
    assert memit.row["single_reliability"] > 0
    assert clean.row["asked_events"] == 3


def test_events_that_are_asked_about_are_spread_over_the_group(elken: Path) -> None:
    group = draw_events(str(elken), 4).events * 25
    places = [group.index(event) for event in EventMeasuring(budget=None).asked(group[:4])]
    assert places == [0, 1, 2, 3]
    assert EventMeasuring(budget=3).asked(group[:3]) == group[:3]
    assert EventMeasuring(budget=2).asked(group[:4]) == [group[0], group[3]]
    assert EventMeasuring(budget=1).asked(group[:4]) == [group[3]]
    assert len(EventMeasuring(budget=20).asked(group)) == 20
    with pytest.raises(EditError, match="found budget=0"):
        EventMeasuring(budget=0)
    with pytest.raises(EditError, match="expected at least one event and one group"):
        EventLoad(0)


def test_what_cannot_be_played_is_said_before_anything_is(model_folder: Path, elken: Path, tmp_path: Path) -> None:
    with pytest.raises(EditError, match="different loads, and no editor with the label unedited"):
        play(model_folder, elken, tmp_path, {"unedited": {}})
    with pytest.raises(EditError, match=r"found no network for m, expected `checkpoint`.*train_mend"):
        play(model_folder, elken, tmp_path, {"m": {"editor": "mend"}})
    with pytest.raises(EditError, match="holds 4 events, 0 of them in contradiction"):
        events(tmp_path, EDITORS, None, str(model_folder), str(elken), [EventLoad(5)])
    assert not list(tmp_path.iterdir())


def test_triples_of_an_assistant_are_taught_in_place_of_the_pairs(
    model_folder: Path, elken: Path, tmp_path: Path
) -> None:
    def script(number: int, prompt: str) -> str:
        text = prompt.rsplit("Report: ", 1)[1]
        subject, new = text.removeprefix("The mother of ").removesuffix(".").split(" is now ")
        return f"Subject: {subject}\nPrompt: {PROMPT.format(subject)}\nTarget: {new}" if subject != "Emil" else "NONE"

    with serve(script) as stub:
        arguments = ["--base_url", stub.url, "--model", "small", "--options", "{retries: 1}"]
        folder = tmp_path / "triples"
        assert main(["run", "convert_events", "--output", str(folder), "--events", str(elken), *arguments]) == 0
        asked = len(stub.bodies)
        assert asked == 4
        assert main(["run", "convert_events", "--output", str(folder), "--events", str(elken), *arguments]) == 0
        assert len(stub.bodies) == asked  # replies were kept
    row = json.loads((folder / "summary.json").read_text())["rows"][0]
    assert {key: row[key] for key in ("events", "converted", "edits", "without_edit", "to_look_at")} == {
        "events": 4, "converted": 3, "edits": 3, "without_edit": 1, "to_look_at": 0,
    }  # fmt: skip
    assert "finds no fact in it" in (folder / "report.md").read_text()
    requests = load_requests(folder / "triples.jsonl")
    assert [request.portability.keys() for request in requests] == [{"stated", "inferred", "unknown"}] * 3
    drawn = draw_events(str(folder / "triples.jsonl"), 3)
    assert [event.id for event in drawn.events] == ["elken-0", "elken-1", "elken-2"]
    shutil.rmtree(folder / "cells", ignore_errors=True)
    memit = {"memit": EDITORS["memit"]}
    results = events(folder, memit, None, str(model_folder), str(folder / "triples.jsonl"), [EventLoad(1, 3)])
    assert results[1].row["reliability"] > 0
    assert results[1].row["portability/stated"] == results[1].row["reliability"]  # the triples ask the same here


def test_converting_needs_an_elken_file(request_file: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="expected ELKEN"):
        convert_events(tmp_path, str(request_file))
    with pytest.raises(EditError, match="found count=0"):
        convert_events(tmp_path, str(request_file), count=0)


def test_as_published_it_parses_and_its_editors_can_be_made(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["run", "leaderboard_events", "--paper", "--print_config"])
    assert exit_.value.code == 0
    assert "Llama-3.1-8B-Instruct" in capsys.readouterr().out
    for recipe in (load_recipe("leaderboard_events"), load_recipe("leaderboard_events").as_published()):
        settings = job_parser(recipe, find_job(recipe.job)).parse_args([])
        assert settings.loads[0]["events"] == 1
        for label, options in recipe.arguments["editors"].items():
            assert Entry.read(label, options, {}).declared.build().requests == []
