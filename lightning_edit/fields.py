"""Reading one JSON object field by field, so that every fault can name its file, line and field.

Knows how a fault is worded and where a value may be a string, a list or a nested list. Refuses to know what an edit is
(`lightning_edit/requests.py`) and which dataset calls which field what (`lightning_edit/data/readers/`).
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from lightning_edit.errors import RequestError

_SURROGATE = re.compile("[\ud800-\udfff]")
_SHOWN = 60  # characters of a found value that a message repeats


class Source(NamedTuple):
    """Where a request was read: a file (or the name of a stream) and the line where its record starts.

    In an array the record's number, from 1, is given as well: many are written as one long line.
    """

    file: str
    line: int | None = None
    record: int | None = None

    def __str__(self) -> str:
        """`edits.jsonl, line 3`, or `edits.json, line 1, record 3`."""
        line = "" if self.line is None else f", line {self.line}"
        return self.file + line + ("" if self.record is None else f", record {self.record}")


class Finding(NamedTuple):
    """Something a reader wants to be known: a record it skipped, or one it read otherwise than to the letter."""

    file: str | None
    line: int | None
    field: str | None
    reason: str
    record: int | None = None

    @classmethod
    def at(cls, source: Source | None, field: str | None, reason: str) -> "Finding":
        """Build a finding about a place that may be unknown.

        Args:
            source: File, line and record, where known.
            field: Dotted path of the field.
            reason: What there is to say.
        """
        file, line, record = source or (None, None, None)
        return cls(file, line, field, reason, record)

    def __str__(self) -> str:
        """`edits.jsonl, line 3, field 'target': found null, ...`."""
        return _place(Source(self.file, self.line, self.record) if self.file else None, self.field) + self.reason


class BadRequest(RequestError):
    """A request that cannot be used as it stands, with the place of the fault as attributes.

    Args:
        reason: What was found, what was expected, what to do.
        field: Dotted path of the field at fault, such as `locality.neighborhood[0].prompt`.
        source: File and line, where they are known.
    """

    def __init__(self, reason: str, field: str | None = None, source: Source | None = None) -> None:
        super().__init__(_place(source, field) + reason)
        self.reason = reason
        self.field = field
        self.source = source

    def finding(self) -> Finding:
        """The same fault as a plain record for a report."""
        return Finding.at(self.source, self.field, self.reason)


def _place(source: Source | None, field: str | None) -> str:
    """Prefix of a message: as much of file, line and field as is known."""
    parts = [str(source)] if source else []
    if field:
        parts.append(f"field '{field}'")
    return ", ".join(parts) + ": " if parts else ""


def found(value: object) -> str:
    """Name a JSON value in a message: its kind, and the value itself where it is short.

    Args:
        value: What stood in the file.
    """
    if value is None:
        return "null"
    for kind, name in ((bool, "the boolean"), (str, "the string"), ((int, float), "the number")):
        if isinstance(value, kind):
            shown = repr(value)
            return f"{name} {shown if len(shown) <= _SHOWN else shown[:_SHOWN] + '...'}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}" if value else "an empty list"
    return "an object" if isinstance(value, Mapping) else f"a {type(value).__name__}"


def check_text(value: object, field: str, source: Source | None = None) -> str:
    """Return `value` if it is a string that says something, else raise `BadRequest`.

    Args:
        value: The value found.
        field: Its dotted path, for the message.
        source: Its file and line, for the message.
    """
    if not isinstance(value, str):
        raise BadRequest(f"found {found(value)}, expected a string; correct the record", field, source)
    if not value.strip():
        raise BadRequest("found an empty string, expected text; fill the field in or leave it out", field, source)
    undecodable = _SURROGATE.search(value)
    if undecodable:
        code = ord(undecodable[0])
        escaped = 0xDC80 <= code <= 0xDCFF  # a byte that `surrogateescape` could not decode
        what = f"the byte 0x{code - 0xDC00:02x}" if escaped else f"half a surrogate pair (U+{code:04X})"
        raise BadRequest(f"found {what}, expected valid UTF-8; save the file as UTF-8", field, source)
    return value


def walk_texts(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Every string inside a JSON value with its dotted path, keys included.

    Args:
        value: Any parsed JSON value.
        path: Dotted path of `value` itself.
    """
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            inner = f"{path}.{key}" if path else str(key)
            yield inner, key
            yield from walk_texts(item, inner)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from walk_texts(item, f"{path}[{index}]")


def check_encoding(value: object, source: Source | None = None) -> None:
    """Raise `BadRequest` on the first string of a JSON value that UTF-8 cannot hold, read field or not.

    Args:
        value: Any parsed JSON value, decoded with `errors="surrogateescape"`.
        source: Its file and line, for the message.
    """
    for field, text in walk_texts(value):
        if _SURROGATE.search(text):
            check_text(text, field.encode("utf-8", "replace").decode(), source)


class Record:
    """One JSON object, read field by field.

    Args:
        data: The parsed object.
        source: Its file and line.
        index: Its position among the file's records, from 0; the only identity some datasets give.
        notes: Where remarks about it are kept.
        path: Dotted path of the object inside its record; empty for the record itself.
    """

    __slots__ = ("data", "index", "notes", "path", "source")

    def __init__(
        self,
        data: Mapping[str, object],
        source: Source | None = None,
        index: int = 0,
        notes: list[Finding] | None = None,
        path: str = "",
    ) -> None:
        self.data = data
        self.source = source
        self.index = index
        self.notes = [] if notes is None else notes
        self.path = path

    def name(self, field: str) -> str:
        """Dotted path of one of this object's fields."""
        return f"{self.path}.{field}" if self.path else field

    def fault(self, field: str, reason: str) -> BadRequest:
        """Build the error for one of this object's fields."""
        return BadRequest(reason, self.name(field), self.source)

    def note(self, field: str, reason: str) -> None:
        """Keep a remark about one of this object's fields."""
        self.notes.append(Finding.at(self.source, self.name(field), reason))

    def has(self, field: str) -> bool:
        """Whether the field is there; null counts as absent."""
        return self.data.get(field) is not None

    def require(self, field: str) -> object:
        """Return the field's value, or raise `BadRequest` if it is missing or null."""
        if not self.has(field):
            what = "found null" if field in self.data else "found no such field"
            there = ", ".join(map(str, self.data)) or "none"
            raise self.fault(field, f"{what}, expected a value (fields found: {there}); add it to the record")
        return self.data[field]

    def text(self, field: str) -> str:
        """Return the field as a string that is not blank."""
        return check_text(self.require(field), self.name(field), self.source)

    def optional_text(self, field: str) -> str | None:
        """Return the field as a string, or None where it is absent."""
        return self.text(field) if self.has(field) else None

    def items(self, field: str) -> list[object]:
        """Return the field as a list; absent counts as empty."""
        value = self.data.get(field)
        if value is None:
            return []
        if not isinstance(value, list | tuple):
            raise self.fault(field, f"found {found(value)}, expected a list; put it in square brackets")
        return list(value)

    def texts(self, field: str) -> tuple[str, ...]:
        """Return the field as a tuple of strings; absent counts as empty."""
        where = self.name(field)
        return tuple(check_text(item, f"{where}[{i}]", self.source) for i, item in enumerate(self.items(field)))

    def answers(self, field: str) -> tuple[str, ...]:
        """Return a string, a list or a list of alias lists as one flat tuple without repetitions.

        Any of the answers counts as right, so nothing is lost when the nesting goes.
        """
        leaves = _leaves(self.require(field), self.name(field))
        flat = dict.fromkeys(check_text(value, where, self.source).strip() for where, value in leaves)
        if not flat:
            raise self.fault(field, "found an empty list, expected at least one answer; fill it in")
        return tuple(flat)

    def child(self, field: str) -> "Record":
        """Return the object in a field as a record of its own."""
        return self._object(self.require(field), self.name(field))

    def children(self, field: str) -> list["Record"]:
        """Return the objects of a list as records of their own; absent counts as empty."""
        where = self.name(field)
        return [self._object(item, f"{where}[{i}]") for i, item in enumerate(self.items(field))]

    def _object(self, value: object, path: str) -> "Record":
        if not isinstance(value, Mapping):
            raise BadRequest(f"found {found(value)}, expected an object; correct the record", path, self.source)
        return Record(value, self.source, self.index, self.notes, path)


def _leaves(value: object, path: str) -> Iterator[tuple[str, object]]:
    """The innermost items of nested lists, each with its path."""
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}[{index}]")
    else:
        yield path, value
