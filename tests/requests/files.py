"""Small files of every request format, and how a test reads a record of its own."""

import json
from pathlib import Path
from typing import Any

import pytest

from lightning_edit.data import load_requests
from lightning_edit.errors import RequestError

FILES = Path(__file__).parents[1] / "fixtures" / "requests"


def records(name: str) -> list[Any]:
    """What a file of JSON, or of JSON lines, holds."""
    text = (FILES / name).read_text(encoding="utf-8")
    found = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.split("\n") if line]
    assert isinstance(found, list)
    return found


def write(folder: Path, value: Any) -> Path:
    """A file with a value."""
    path = folder / "edits.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def check_fault(path: Path, field: str) -> None:
    """The second of two records has a fault in a field: it is named, and costs that record alone."""
    with pytest.raises(RequestError) as caught:
        load_requests(path)
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{path}, line 1, record 2, field '{field}': found ")
    skipping = load_requests(path, on_bad="skip")
    assert len(skipping) == 1
    assert [(found.record, found.field) for found in skipping.skipped] == [(2, field)]
