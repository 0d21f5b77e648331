"""What the pages name exists: files, other pages and their sections, recipes, and what their examples import."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lightning_edit.recipes import shipped_recipes

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = ("lightning_edit", "callbacks", "recipes", "tests", "docs", "benchmarks")
FILE = re.compile(rf"(?<![\w/.-])(?:{'|'.join(FOLDERS)})/[\w./-]*\w")
IN_PACKAGE = re.compile(r"`([a-z_]+/[\w/]+\.(?:py|yaml))`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
RECIPE = re.compile(r"lightning-edit (?:run|cp) ([a-z]\w*)(?![\w.])")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def blocks(page: Path, language: str) -> Iterator[str]:
    """The code of a page in one language, without the indentation of a list around it."""
    for indent, found, code in BLOCK.findall(page.read_text(encoding="utf-8")):
        if found == language:
            yield "\n".join(line.removeprefix(indent) for line in code.splitlines())


def sections(page: Path) -> set[str]:
    """What links to the sections of a page end with."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    titles = [re.sub(r"[^\w\s-]", "", title.lower()) for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
    return {re.sub(r"[\s-]+", "-", title.strip()) for title in titles}


@every_page
def test_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [name for name in FILE.findall(text) if not (ROOT / name).exists()] == []
    short = [name for name in IN_PACKAGE.findall(text) if name.partition("/")[0] not in FOLDERS]
    assert [name for name in short if not (ROOT / "lightning_edit" / name).exists()] == []


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for link in LINK.findall(text):
        if link.startswith(("http:", "https:")):
            continue
        name, _, section = link.partition("#")
        target = page if not name else page.parent / name
        assert target.exists(), link
        if section and target.stem != "reference":  # whose sections are made out of docstrings
            assert section in sections(target), link


@every_page
def test_recipes_ship(page: Path) -> None:
    named = set(RECIPE.findall(page.read_text(encoding="utf-8")))
    assert named <= set(shipped_recipes())


@every_page
def test_examples_parse_and_import_what_there_is(page: Path) -> None:
    for code in blocks(page, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
    for code in blocks(page, "yaml"):
        assert yaml.safe_load(code) is not None
