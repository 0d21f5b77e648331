"""Cells on disk, and the tables that are made of them."""

import json
from pathlib import Path

import pytest

from lightning_edit.errors import StateError
from lightning_edit.jobs.leaderboard_cells import Cell, CellFolder, fingerprint
from lightning_edit.jobs.leaderboard_tables import all_tables

SETTINGS = {"editor": {"name": "memit"}, "loads": [1, 2]}
LABELS = ["unedited", "rome", "memit"]


def test_a_cell_comes_back_as_it_was(tmp_path: Path) -> None:
    folder = CellFolder(tmp_path / "cells")
    assert folder.read("memit", 10) is None
    cell = Cell("memit", 10, SETTINGS, {"reliability": 0.5, "aligned": True}, ["slow"], None, 3.5, "here")
    folder.write(cell)
    assert folder.read("memit", 10) == cell
    assert folder.finished("memit", 10, dict(reversed(SETTINGS.items()))) == cell  # order is no setting
    assert folder.finished("memit", 10, {**SETTINGS, "loads": [2, 1]}) is None
    assert not list(tmp_path.rglob("*.part"))


def test_a_failed_cell_is_not_finished(tmp_path: Path) -> None:
    folder = CellFolder(tmp_path)
    folder.write(Cell("memit", 1, SETTINGS, error="ValueError: no"))
    assert folder.finished("memit", 1, SETTINGS) is None
    found = folder.read("memit", 1)
    assert found is not None
    assert found.error == "ValueError: no"


def test_numbers_that_json_cannot_hold_are_left_out_and_named(tmp_path: Path) -> None:
    folder = CellFolder(tmp_path)
    folder.write(Cell("memit", 1, SETTINGS, {"a": float("inf"), "b": 1.0, "c": float("nan")}))
    found = folder.read("memit", 1)
    assert found is not None
    assert found.row == {"b": 1.0}
    assert found.notes == ["not finite, and so left out: a, c"]


def test_what_is_no_cell_is_refused(tmp_path: Path) -> None:
    folder = CellFolder(tmp_path)
    folder.write(Cell("memit", 1, SETTINGS, {"b": 1.0}))
    path = folder.path("memit", 1)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "settings": {"loads": []}}))
    with pytest.raises(StateError, match="changed by hand"):
        folder.read("memit", 1)
    for text in ("{", json.dumps({**content, "version": 0}), json.dumps({"version": 1})):
        path.write_text(text)
        with pytest.raises(StateError, match="no cell of a leaderboard"):
            folder.read("memit", 1)


def test_a_fingerprint_tells_settings_apart() -> None:
    prints = {fingerprint(one) for one in ({"a": 1}, {"a": 2}, {"b": 1}, {"a": [1]}, {"a": {"a": 1}})}
    assert len(prints) == 5


def cells() -> list[Cell]:
    def cell(editor: str, edits: int, value: float) -> Cell:
        row = {"reliability": value, "generalization": value, "locality": 1.0, "portability": 0.0}
        further = {"average": value / 2, "token_locality/match_ratio": value, "token_locality/exact_match": 0.0}
        task = {"reasoning/world_two_hop": value, "reasoning/mean": value}
        return Cell(editor, edits, {}, {**row, **further, **task, "seconds_per_edit": 2.0})

    return [cell("unedited", 0, 0.1), cell("memit", 1, 0.9), cell("memit", 100, 0.5), cell("rome", 1, 0.8)]


def test_tables_have_the_papers_rows_and_columns() -> None:
    both, by_load, tokens, tasks = all_tables(cells(), LABELS)
    assert both.columns[:6] == ["method", "Rel. (1)", "Gen. (1)", "Loc. (1)", "Port. (1)", "Avg. (1)"]
    assert both.columns[-1] == "Avg. (100)"
    assert both.rows[0] == ["unedited", *[0.1, 0.1, 1.0, 0.0, 0.05] * 2]  # the same at every load
    assert both.rows[1] == ["rome", 0.8, 0.8, 1.0, 0.0, 0.4, *[None] * 5]
    assert both.rows[2][0] == "memit"
    assert [row[:3] for row in by_load.rows] == [
        [1, "unedited", 0.1], [1, "rome", 0.8], [1, "memit", 0.9], [100, "unedited", 0.1], [100, "memit", 0.5],
    ]  # fmt: skip
    assert tokens.rows[2] == ["memit", 0.9, 0.0, 0.5, 0.0]
    assert tasks.columns == ["method", "edits", "two hop", "Avg."]
    assert tasks.rows == [
        ["unedited", 0, 0.1, 0.1], ["rome", 1, 0.8, 0.8], ["memit", 1, 0.9, 0.9], ["memit", 100, 0.5, 0.5],
    ]  # fmt: skip


def test_one_load_makes_no_comparison_of_two_and_no_numbers_no_table() -> None:
    alone = [cell for cell in cells() if cell.edits < 2]
    assert [table.title for table in all_tables(alone, LABELS)] == [
        "By load", "Token-level locality", "Reasoning and general ability",
    ]  # fmt: skip
    assert all_tables([], LABELS) == []
