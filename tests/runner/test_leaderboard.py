"""The leaderboard: cells that are kept, played again where something changed, and never stop each other."""

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import torch

from lightning_edit.cli import main
from lightning_edit.editors.grace.editor import GRACE
from lightning_edit.editors.report import EditReport, Guard
from lightning_edit.errors import EditError
from lightning_edit.evaluation import Evaluator, evaluate_token_locality, measure_token_baseline
from lightning_edit.jobs.board import mark
from lightning_edit.jobs.cast import Declared
from lightning_edit.jobs.inputs import draw_stream, gather_moments
from lightning_edit.jobs.leaderboard_cells import Load
from lightning_edit.jobs.leaderboard_entries import Entry
from lightning_edit.jobs.leaderboard_play import Arena, Measuring
from lightning_edit.jobs.stage import load_model
from lightning_edit.model.language_model import as_language_model
from lightning_edit.requests import EditRequest
from lightning_edit.runner.cells import show
from lightning_edit.runner.recipe import load_recipe

SMALL = {"select": "{facts} {question}", "answer": "{fact} {prompt}"}  # all that a context of 128 tokens has room for
LOADS = [{"edits": 1, "groups": 2}, {"edits": 3, "batch": 2}]
LITTLE = {"token_budget": 2, "token_length": 4, "latency": 1, "tasks": []}
LESSONS = {"steps": 1, "lessons": 3, "validation": 1, "batch_size": 2, "rank": 4}


@pytest.fixture
def four_dimensions(request_file: Path, tmp_path: Path) -> Path:
    """The requests with something to ask in every dimension."""
    records = [json.loads(line) for line in request_file.read_text().splitlines()]
    for record in records:
        record["paraphrases"] = [f"It is known that {record['prompt']}"]
        record["portability"] = {"hop": [{"prompt": f"He said: {record['prompt']}", "answers": [record["target"]]}]}
    file = tmp_path / "four.jsonl"
    file.write_text("\n".join(map(json.dumps, records)))
    return file


class Vandal(GRACE):
    """Fails in its first edit, with weights and memory of the model changed, which no editor may leave behind."""

    def edit(self, module: object, requests: Iterable[EditRequest], guard: Guard | None = None) -> EditReport:
        lm = as_language_model(module)
        with torch.no_grad():
            next(lm.model.parameters()).add_(1.0)
        raise ValueError("out of paint")


def run(
    output: Path,
    model: Path,
    file: Path,
    editors: dict[str, Any],
    *more: str,
    recipe: str = "leaderboard",
    **asked: Any,
) -> int:
    mend = {**LESSONS, "requests": str(file), "modules": ["down_proj"]}
    plain = {"editors": editors, "loads": LOADS, "measuring": {**LITTLE, **asked}, "mend": mend}
    options = [text for key, value in plain.items() for text in (f"--{key}", json.dumps(value))]
    where = ["--model", str(model), "--requests", str(file), "--output", str(output), "--tokens", "2000"]
    return main(["run", recipe, *where, "--seed", "0", *options, *more])


def rows_of(output: Path) -> dict[str, dict[str, Any]]:
    return {row["run"]: row for row in json.loads((output / "summary.json").read_text())["rows"]}


def stamps(output: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (output / "cells").iterdir()}


@pytest.mark.slow
def test_cells_are_kept_replayed_where_something_changed_and_fail_alone(
    model_folder: Path, request_file: Path, tmp_path: Path
) -> None:
    vandal = {"editor": "tests.runner.test_leaderboard.Vandal", "layer": 1}
    memit = {"editor": "memit", "layers": [0, 1]}
    two = {"vandal": vandal, "memit": memit}
    assert run(tmp_path, model_folder, request_file, two) == 1
    rows, first = rows_of(tmp_path), stamps(tmp_path)
    assert set(first) == {"unedited-0.json", "memit-1.json", "memit-3.json", "vandal-1.json", "vandal-3.json"}
    assert rows["vandal"]["failed_cells"] == 2
    assert "- vandal: 3 edits: ValueError: out of paint" in (tmp_path / "report.md").read_text()
    assert rows["unedited"]["locality"] == rows["unedited"]["token_locality/match_ratio"] == 1.0
    assert (rows["memit"]["edits"], rows["memit"]["batch"], rows["memit"]["single_batch"]) == (3, 2, 1)
    assert rows["memit"]["relative_change"] > 0
    assert {"cpu_seconds_per_edit", "latency_ratio", "latency_cpu_ratio", "state_bytes"} <= rows["memit"].keys()
    cell = json.loads((tmp_path / "cells" / "memit-3.json").read_text())
    assert cell["error"] is None
    assert cell["settings"]["editor"]["resolved"]["layers"] == [0, 1]

    alone = tmp_path / "alone"  # what the vandal left is no part of the next one's numbers
    assert run(alone, model_folder, request_file, {"memit": memit}) == 0
    same = ("reliability", "generalization", "locality", "token_locality/match_ratio", "relative_change")
    known = [key for key in same if key in rows["memit"]]
    assert {key: rows_of(alone)["memit"][key] for key in known} == {key: rows["memit"][key] for key in known}

    assert run(tmp_path, model_folder, request_file, two) == 1  # finished cells are read, failed ones played again
    again = stamps(tmp_path)
    assert {name for name in again if again[name] != first[name]} == {"vandal-1.json", "vandal-3.json"}
    assert rows_of(tmp_path)["memit"] == rows["memit"]

    three = {"memit": {**memit, "steps": 3}, "grace": {"editor": "grace", "layer": 1, "steps": 2}}
    assert run(tmp_path, model_folder, request_file, three, "--minutes", "0") == 0  # reports what there is
    assert stamps(tmp_path) == again
    assert "4 cells were not played yet" in (tmp_path / "report.md").read_text()
    assert run(tmp_path, model_folder, request_file, three) == 0
    last = stamps(tmp_path)
    assert last["unedited-0.json"] == again["unedited-0.json"]
    assert last["memit-1.json"] != again["memit-1.json"]
    assert rows_of(tmp_path)["grace"]["edits"] == 3
    assert "relative_change" not in rows_of(tmp_path)["grace"]  # it writes no weight


def test_seeds_are_played_in_folders_of_their_own_and_summed_up(
    model_folder: Path, request_file: Path, tmp_path: Path
) -> None:
    editors = {"memit": {"editor": "memit", "layers": [1], "clamp": 6.0, "steps": 8, "weight_decay": 0.0}}
    fast: dict[str, Any] = {"token_budget": 0, "latency": 0}
    seeds = ["--seeds", "0,1", "--choice", "random"]
    assert run(tmp_path, model_folder, request_file, editors, *seeds, **fast) == 0
    rows = rows_of(tmp_path)
    files = [tmp_path / f"seed-{seed}" / "cells" / "memit-3.json" for seed in (0, 1)]
    cells = [json.loads(file.read_text()) for file in files]
    assert cells[0]["settings"]["requests"] != cells[1]["settings"]["requests"]
    seconds = [cell["row"]["seconds_per_edit"] for cell in cells]
    assert rows["memit"]["seconds_per_edit"] == pytest.approx(fmean(seconds))
    assert rows["memit"]["seconds_per_edit_std"] == pytest.approx(stdev(seconds))
    assert [row["seeds"] for row in rows.values()] == [2, 2]
    report = (tmp_path / "report.md").read_text()
    table = report.partition("## By load")[2].partition("##")[0]
    assert f"| {show(fmean(seconds))} ± {show(stdev(seconds))} |" in table  # numbers in the job's own tables, too
    assert "seed 0: 3 cells" in report
    assert "so no spread" not in report

    for file, cell in zip(files, cells, strict=True):  # as an earlier version left them
        assert cell["row"].pop("protocol") == "greedy-24, to sentence, exact_match, by probes, locality unedited"
        file.write_text(json.dumps(cell))
    assert run(tmp_path, model_folder, request_file, editors, *seeds, "--minutes", "0", **fast) == 0
    assert rows_of(tmp_path) == rows
    single = ["--choice", "random", "--minutes", "0"]
    assert run(tmp_path / "seed-0", model_folder, request_file, editors, *single, **fast) == 0
    report = (tmp_path / "seed-0" / "report.md").read_text()
    assert "- unedited: one seed, so no spread: --seeds 0,1,2" in report
    assert "\n\nAnswers: greedy-24, to sentence, exact_match, by probes, locality unedited.\n\n" in report


def test_a_cell_is_the_protocol_played_by_hand(model_folder: Path, request_file: Path) -> None:
    stream = draw_stream(str(request_file), 4, 0, "first")
    measuring = Measuring(token_length=4, token_budget=4, latency=0)
    declared = Declared.read({"editor": "memit", "layers": [0, 1], "aligned": False}, {}, 1)

    def ready() -> Any:
        lm = load_model(str(model_folder), "float32", "cpu")
        editor = declared.build(0)
        moments = gather_moments(lm, str(request_file), editor.attach(lm), stream, None, None, 2_000)
        editor.prepare(lm, statistics=moments)
        return lm, editor

    lm, editor = ready()
    before = mark(lm)
    row, _ = Arena(lm, stream, measuring).play(editor, Load(2, 2), 1)
    assert torch.equal(mark(lm), before)
    ask = Evaluator(100, 2, 4, 2)
    found = []
    for group in (stream[:2], stream[2:]):
        lm, editor = ready()
        baseline, tokens = ask.measure_baseline(lm, group), measure_token_baseline(lm, group, 4)
        for request in group:
            editor.edit(lm, [request])
        found.append({**ask.evaluate(lm, group, baseline), **evaluate_token_locality(lm, group, tokens)})
    for key in found[0]:
        assert row[key] == pytest.approx(sum(one[key] for one in found) / 2)


def test_mend_is_trained_once_and_serves_its_hybrid_too(model_folder: Path, request_file: Path, tmp_path: Path) -> None:
    memory = {"templates": SMALL}
    editors = {
        "mend": {"editor": "mend"},
        "both": {"editor": "hybrid", "options": {"editor": "mend", "memory": memory}},
    }
    assert run(tmp_path, model_folder, request_file, editors, recipe="fairness") == 0
    record = tmp_path / "mend" / "training.json"
    first, trained = stamps(tmp_path), record.stat().st_mtime_ns
    rows = rows_of(tmp_path)
    assert rows["mend"]["training_seconds"] == rows["both"]["training_seconds"] > 0
    moved = tmp_path.rename(tmp_path.parent / "moved")  # where the network lies is no setting
    assert run(moved, model_folder, request_file, editors, recipe="fairness") == 0
    assert (stamps(moved), (moved / "mend" / "training.json").stat().st_mtime_ns) == (first, trained)
    more = ("--mend.steps", "2")
    assert run(moved, model_folder, request_file, editors, *more, recipe="fairness") == 0
    assert not {name for name in stamps(moved) if stamps(moved)[name] == first[name]} - {"unedited-0.json"}


def test_without_a_network_mend_fails_and_the_others_go_on(
    model_folder: Path, request_file: Path, tmp_path: Path
) -> None:
    editors = {"mend": {"editor": "mend"}, "ice": {"editor": "ice", "templates": SMALL}}
    assert run(tmp_path, model_folder, request_file, editors, "--mend.modules", "[no_such]") == 1
    assert rows_of(tmp_path)["ice"]["edits"] == 3
    assert "- mend: 1 edits: EditError: MEND's network could not be trained" in (tmp_path / "report.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["leaderboard_paper", "fairness"])
def test_the_papers_editors_run_on_a_folder_and_a_file(
    recipe: str, model_folder: Path, four_dimensions: Path, tmp_path: Path
) -> None:
    published = load_recipe(recipe) if recipe == "leaderboard_paper" else load_recipe(recipe).as_published()
    editors = json.loads(json.dumps(published.arguments["editors"]).replace('"retriever": "contriever"', '"top_k": 1'))
    for options in editors.values():
        own = options.get("options", options)  # a hybrid's stand apart
        if options["editor"] in ("scr", "ice", "hybrid"):
            own.get("memory", own)["templates"] = SMALL
        weights = own.setdefault("editor_options", {}) if options["editor"] == "hybrid" else own
        if own["editor"] not in ("mend", "scr", "ice"):
            weights["steps"] = 2
    more = ["--loads", json.dumps([{"edits": 1}, {"edits": 2}]), "--corpus", "null"]
    asked = {"answers": {"chat": False, "max_new_tokens": 3}}  # the tiny model has no chat
    assert run(tmp_path, model_folder, four_dimensions, editors, *more, recipe=recipe, **asked) == 0
    rows = rows_of(tmp_path)
    assert list(rows) == ["unedited", *editors]
    assert all(row["edits"] == 2 and row["seconds_per_edit"] > 0 for name, row in rows.items() if name != "unedited")
    drawn = {spec.name for spec in published.report.plots}
    assert {path.stem for path in tmp_path.glob("*.png")} == drawn
    text = (tmp_path / "report.md").read_text()
    assert all(title in text for title in ("## Single and sequential editing", "## By load", "## Settings"))


def test_recipes_agree_with_each_other() -> None:
    board, paper = load_recipe("leaderboard"), load_recipe("leaderboard_paper")
    assert board.as_published().arguments == paper.arguments
    assert [name for name in board.arguments["editors"] if name != "ike"] == list(paper.arguments["editors"])
    for name in ("leaderboard", "fairness"):
        fast = load_recipe(name).shortened().arguments
        assert fast["editors"] == load_recipe(name).arguments["editors"]  # all editors, smaller sizes
    drawn = [label for spec in board.report.plots for label in spec.runs or []]
    assert drawn == list(board.arguments["editors"])


def test_settings_do_not_hold_where_a_network_lies() -> None:
    hybrid = {"editor": "hybrid", "options": {"editor": "mend", "editor_options": {"batch_size": 2}}}
    for options in ({"editor": "mend", "batch_size": 2}, hybrid):
        entry = Entry.read("mend+scr", options, {})
        given = entry.with_mend(Path("somewhere/mend.pt"))
        assert entry.wants_mend
        assert not given.wants_mend
        assert "somewhere/mend.pt" in json.dumps(given.declared.options)
        assert "somewhere" not in json.dumps(given.settings({"steps": 3}))
        assert given.settings({"steps": 3})["mend"] == {"steps": 3}
    rome = Entry.read("rome", {"editor": "rome", "batch": 1, "shortened": "half"}, {})
    assert (rome.at_once(Load(500, 1, 10)), rome.shortened, rome.declared.options) == (1, "half", {})
    assert Entry.read("a", {}, {}).at_once(Load(4, 1, 10)) == 4
    assert rome.with_mend(Path("mend.pt")) is rome


@pytest.mark.parametrize(
    ("label", "options", "message"),
    [("a/b", {}, "label 'a/b'"), ("a", {"batch": 0}, "batch=0"), ("a", {"batch": "all"}, "batch='all'")],
)
def test_what_an_entry_refuses(label: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(EditError, match=message):
        Entry.read(label, options, {})


def test_what_the_job_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twice = json.dumps([{"edits": 1}, {"edits": 1, "groups": 2}])
    for more in (["--loads", twice], ["--editors", '{"unedited": {"editor": "memit"}}']):
        assert main(["run", "leaderboard", "--output", str(tmp_path), *more]) == 1
        assert "different loads, and no editor with the label unedited" in capsys.readouterr().err
    assert main(["run", "leaderboard_paper", "--output", str(tmp_path)]) == 1  # before anything is trained
    assert "found no file ZsRE-test-all.json" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    with pytest.raises(EditError, match="at least one edit"):
        Load(0)


def test_fast_is_for_recipes_that_have_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "locate", "--fast"]) == 1
    assert "has no fast configuration" in capsys.readouterr().err
    assert main(["run", "leaderboard", "--fast", "--paper"]) == 1
    assert "expected one of them" in capsys.readouterr().err
    with pytest.raises(SystemExit) as left:
        main(["run", "leaderboard", "--fast", "--print_config"])
    assert left.value.code == 0
    assert "questions: 6" in capsys.readouterr().out
