"""A request file that may be appended to while it is being worked off.

Knows the end of a file: a last line that is still being written waits until its line break has come. Refuses to know
what requests are for. Only JSON lines can grow; the published formats are single arrays, and are read once.
"""

import json
from pathlib import Path

from lightning_edit.data.load import OnBad, load_requests
from lightning_edit.errors import RequestError
from lightning_edit.fields import BadRequest, Finding, Source, check_encoding
from lightning_edit.requests import EditRequest


class GrowingFile:
    """Requests of a file, and those that are appended later.

    Args:
        path: The file.
        on_bad: `raise` or `skip`.

    Attributes:
        requests: All requests so far; the list grows in place.
        skipped: Records left out under `on_bad="skip"`.
    """

    def __init__(self, path: Path, on_bad: OnBad = "raise") -> None:
        self.path = path
        self._on_bad = on_bad
        self._size = path.stat().st_size if path.is_file() else 0
        loaded = load_requests(path, on_bad)
        self.requests: list[EditRequest] = list(loaded)
        self.skipped: list[Finding] = list(loaded.skipped)
        with path.open("rb") as file:
            head = file.read(self._size)
        self._lines = head.count(b"\n")
        self._grows = not head.lstrip().startswith(b"[")

    def read_on(self) -> bool:
        """Append the requests of all lines that have been completed since; returns whether there were any."""
        if not self._grows or not self._unread():
            return False
        with self.path.open("rb") as file:
            file.seek(self._size)
            *lines, _ = file.read().split(b"\n")  # what follows the last line break is still being written
        for line in lines:
            self._lines += 1
            self._size += len(line) + 1
            if line.strip():
                self._read_line(line.decode("utf-8", "surrogateescape"), Source(str(self.path), self._lines))
        return bool(lines)

    def _unread(self) -> int:
        """How many bytes have come since."""
        size = self.path.stat().st_size
        if size < self._size:
            raise RequestError(
                f"{self.path}: found {size} bytes, expected at least the {self._size} that were read before; a request "
                "file may only be appended to while it is being worked off. Put new requests into a new file."
            )
        return size - self._size

    def _read_line(self, line: str, source: Source) -> None:
        """One line as a request."""
        try:
            try:
                data = json.loads(line)
            except json.JSONDecodeError as error:
                raise BadRequest(f"found text that is no JSON ({error}); expected one object", None, source) from error
            check_encoding(data, source)
            self.requests.append(EditRequest.from_dict(data, source))
        except BadRequest as fault:
            if self._on_bad == "raise":
                raise
            self.skipped.append(fault.finding())
