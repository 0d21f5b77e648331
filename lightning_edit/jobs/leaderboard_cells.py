"""Cells of a leaderboard: one editor at one load, one small JSON file each, so that a run can stop anywhere.

A file carries the settings that its numbers hang on and their fingerprint. A cell whose fingerprint is the wanted one
is not played again; with other settings it is, and so is one that failed. This file knows files; it runs no editor.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightning_edit.errors import EditError, StateError
from lightning_edit.runner.results import Scalar

VERSION = 1


@dataclass(frozen=True)
class Load:
    """How many edits a model carries when it is asked, and how they get there.

    Args:
        edits: Edits in a group; each group starts from the clean model.
        groups: Number of groups; they share out the first `edits` times `groups` requests.
        batch: Requests handed to the editor at once, where the editor says nothing else.
    """

    edits: int = 1
    groups: int = 1
    batch: int = 1

    def __post_init__(self) -> None:
        if self.edits < 1 or self.groups < 1 or self.batch < 1:
            raise EditError(f"found {self}, expected at least one edit, one group and one request at once.")

    @property
    def requests(self) -> int:
        """Number of requests that it takes."""
        return self.edits * self.groups


@dataclass
class Cell:
    """What came of one editor at one load.

    Args:
        editor: Label of the editor.
        edits: The load.
        settings: Everything that the numbers hang on, as plain values.
        row: Numbers by key.
        notes: Remarks for a person.
        error: What went wrong; the cell has no numbers then.
        seconds: How long the cell took, all measuring included.
        where: Machine and device.
    """

    editor: str
    edits: int
    settings: dict[str, Any]
    row: dict[str, Scalar] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    error: str | None = None
    seconds: float = 0.0
    where: str = ""

    @property
    def fingerprint(self) -> str:
        """A hash of the settings."""
        return fingerprint(self.settings)


def fingerprint(settings: Mapping[str, Any]) -> str:
    """A hash of plain settings that does not depend on their order.

    Args:
        settings: Numbers, texts, lists and mappings.

    Example:
        >>> fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
        True
    """
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


class CellFolder:
    """The cells of a leaderboard on disk.

    Args:
        folder: Where they lie; made when the first one is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, editor: str, edits: int) -> Path:
        """The file of a cell.

        Args:
            editor: Label of the editor.
            edits: The load.
        """
        return self.folder / f"{editor}-{edits}.json"

    def read(self, editor: str, edits: int) -> Cell | None:
        """A cell as it was left, finished or failed; None where there is none.

        Args:
            editor: Label of the editor.
            edits: The load.

        Raises:
            StateError: The file is no cell of this version.
        """
        path = self.path(editor, edits)
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.pop("version") != VERSION:
                raise ValueError("of another version")
            known = content.pop("fingerprint")
            cell = Cell(**content)
        except (ValueError, KeyError, TypeError) as error:
            raise StateError(f"{path} is no cell of a leaderboard ({error}); expected one. Remove the file.") from error
        if cell.fingerprint != known:
            raise StateError(f"{path} was changed by hand: its settings are not those of its fingerprint. Remove it.")
        return cell

    def finished(self, editor: str, edits: int, settings: Mapping[str, Any]) -> Cell | None:
        """A cell that was played without error under these very settings; None where there is none.

        Args:
            editor: Label of the editor.
            edits: The load.
            settings: What its numbers have to hang on.
        """
        cell = self.read(editor, edits)
        return cell if cell and cell.error is None and cell.fingerprint == fingerprint(settings) else None

    def write(self, cell: Cell) -> None:
        """Put a cell on disk; a process that is killed leaves the old file or the new one.

        Args:
            cell: The cell. Numbers that JSON cannot hold are left out, with a note.
        """
        bad = [key for key, value in cell.row.items() if isinstance(value, float) and not math.isfinite(value)]
        cell.row = {key: value for key, value in cell.row.items() if key not in bad}
        cell.notes += [f"not finite, and so left out: {', '.join(bad)}"] if bad else []
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path(cell.editor, cell.edits)
        content = {"version": VERSION, "fingerprint": cell.fingerprint, **asdict(cell)}
        draft = path.with_name(path.name + ".part")
        draft.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
        draft.replace(path)
