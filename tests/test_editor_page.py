"""The page of editors names every editor that there is."""

import re
from pathlib import Path

import pytest

from lightning_edit.editors.registry import EDITORS

PAGE = Path(__file__).parents[1] / "docs" / "editors.md"


def test_the_page_lists_every_editor_once_and_no_other() -> None:
    rows = [line.split("|")[1] for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    named = [name for cell in rows for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(named) == sorted(EDITORS)


@pytest.mark.parametrize("name", ["gradient-editors", "memory-editors", "text-memory", "mathematics", "findings"])
def test_its_links_exist(name: str) -> None:
    assert f"({name}.md)" in PAGE.read_text(encoding="utf-8")
    assert (PAGE.parent / f"{name}.md").is_file()
