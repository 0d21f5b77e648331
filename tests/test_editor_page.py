"""The page of editors names every editor that there is, and says of each what conformance finds it can undo."""

import re
from pathlib import Path

import pytest

from lightning_edit.editors.registry import EDITORS
from tests.editors.conformance import CASES

PAGE = Path(__file__).parents[1] / "docs" / "editors.md"
UNDO = {"any": "any request", "last": "the last commits", "none": "none"}  # how the page begins to say it


def rows() -> list[tuple[str, str]]:
    """Names of editors, and what the page's first table says of their undo, which is its last column."""
    table = PAGE.read_text(encoding="utf-8").partition("| name |")[2].partition("\n\n")[0]
    lines = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| `")]
    return [(name, cells[-1].strip()) for cells in lines for name in re.findall(r"`(\w+)`", cells[0])]


def test_the_page_lists_every_editor_once_and_no_other() -> None:
    assert sorted(name for name, _ in rows()) == sorted(EDITORS)


@pytest.mark.parametrize("name", EDITORS)
def test_it_says_first_what_an_editor_can_undo_by_default(name: str) -> None:
    case = next(case for case in CASES.values() if case.editor == name)  # the first of several is the plain one
    assert re.match(rf"{UNDO[case.undo]}\b", dict(rows())[name])


@pytest.mark.parametrize("name", ["gradient-editors", "memory-editors", "text-memory", "mathematics", "findings"])
def test_its_links_exist(name: str) -> None:
    assert f"({name}.md)" in PAGE.read_text(encoding="utf-8")
    assert (PAGE.parent / f"{name}.md").is_file()
