"""`scr_sensitivity`: widths of look-up and sizes of memory, small, from the command line to the figures."""

import json
from pathlib import Path

import pytest

from lightning_edit.cli import main
from lightning_edit.jobs.cast import Declared

SMALL = {"select": "{facts} {question}", "answer": "{fact} {prompt}"}  # all that a context of 128 tokens has room for


def test_it_runs_small_and_shows_what_it_promises(model_folder: Path, request_file: Path, tmp_path: Path) -> None:
    options = [
        "--model",
        str(model_folder),
        "--requests",
        str(request_file),
        "--shared",
        json.dumps({"templates": SMALL}),
    ]
    sizes = ["--count", "4", "--steps", "2", "--measurements", "2", "--asking.latency", "1"]
    assert main(["run", "scr_sensitivity", "--output", str(tmp_path), *options, *sizes]) == 0
    rows = {row["run"]: row for row in json.loads((tmp_path / "summary.json").read_text())["rows"]}
    assert list(rows) == ["top-1", "top-3", "top-5", "top-10", "unselected"]
    for row in rows.values():
        assert row["edits"] == 4
        assert row["latency_ratio"] > 0
        assert row["seconds_per_edit"] < 1
    # the tiny model's reply names no fact, so the answers are its own; who tells facts to every prompt changes them
    assert {rows[name]["locality"] for name in ("top-1", "top-3", "top-5", "top-10")} == {1.0}
    assert {rows[name]["reliability"] for name in ("top-1", "top-3", "top-5", "top-10")} == {0.0}
    assert rows["unselected"]["locality"] < 1.0
    assert {file.name for file in tmp_path.glob("*.png")} >= {"reliability.png", "locality.png"}


def test_it_parses_as_published(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["run", "scr_sensitivity", "--paper", "--print_config"])
    assert exit_.value.code == 0
    assert "Llama-3.1-8B-Instruct" in capsys.readouterr().out


def test_a_hybrids_own_options_stand_apart_from_the_name() -> None:
    declared = Declared.read({"editor": "hybrid", "options": {"editor": "alphaedit", "memory": {"top_k": 5}}}, {}, 3)
    assert (declared.name, declared.steps) == ("hybrid", 3)
    editor = declared.build()
    assert type(editor.editor).__name__ == "AlphaEdit"  # type: ignore[attr-defined]
    assert editor.memory.top_k == 5  # type: ignore[attr-defined]
