"""Replies that were paid for once, in one SQLite file.

A reply is found again by its purpose, the model that gave it with all settings, and the prompt, word for word. Nothing
else is stored; keys of endpoints in particular never come here. A connection lives as long as one call, so a cache can
be pickled, and several threads and processes may share a file.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from lightning_edit.errors import StateError

VERSION = 1
_WAIT = 30.0  # seconds that a write waits for another process
_TABLE = """
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY, purpose TEXT NOT NULL, model TEXT NOT NULL, prompt TEXT NOT NULL, reply TEXT NOT NULL
) WITHOUT ROWID
"""


class ReplyCache:
    """Replies on disk.

    Args:
        path: The file; it is made where there is none, with its folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if version != VERSION and tables:
                raise StateError(
                    f"{self.path}: found a database that is no cache of replies of version {VERSION} (its version is "
                    f"{version}); expected one, or no file. Give another path."
                )
            connection.execute(_TABLE)
            connection.execute(f"PRAGMA user_version = {VERSION}")

    def __repr__(self) -> str:
        return f"ReplyCache({str(self.path)!r})"

    def __len__(self) -> int:
        """Number of replies."""
        with self._open() as connection:
            return int(connection.execute("SELECT count(*) FROM replies").fetchone()[0])

    def find(self, purpose: str, model: str, prompts: Sequence[str]) -> dict[str, str]:
        """The replies that are known, by prompt.

        Args:
            purpose: What they are for.
            model: `Assistant.identity`.
            prompts: The prompts, word for word.
        """
        query = "SELECT reply FROM replies WHERE key = ?"
        with self._open() as connection:
            rows = {text: connection.execute(query, (_key(purpose, model, text),)).fetchone() for text in set(prompts)}
        return {prompt: row[0] for prompt, row in rows.items() if row is not None}

    def put(self, purpose: str, model: str, prompt: str, reply: str) -> None:
        """Keep a reply; a later one to the same prompt takes its place.

        Args:
            purpose: What it is for.
            model: `Assistant.identity`.
            prompt: The prompt, word for word.
            reply: What the model wrote.
        """
        row = (_key(purpose, model, prompt), purpose, model, prompt, reply)
        with self._open() as connection:
            connection.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?)", row)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection for one call; what it did is written at its end, or undone where it failed."""
        try:
            with closing(sqlite3.connect(self.path, timeout=_WAIT)) as connection, connection:
                yield connection
        except sqlite3.Error as error:
            raise StateError(
                f"{self.path}: {error}; expected a cache of replies that can be read and written. Give another path, "
                "or remove the file."
            ) from error


def _key(purpose: str, model: str, prompt: str) -> str:
    return hashlib.sha256(json.dumps([purpose, model, prompt]).encode()).hexdigest()
