"""A file of JSON records, one by one, each with the line where it starts.

Knows JSON arrays and JSON lines, bad bytes and broken ends. Refuses to know what a record means. No second parser: the
standard decoder is asked for one record at a time, and line breaks are counted between them.
"""

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_edit.errors import RequestError

_SPACE = re.compile(r"[ \t\r\n]*")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LOST = "nothing after it can be read"


@dataclass(frozen=True, slots=True)
class RawRecord:
    """One record, or what stands where one was expected.

    Args:
        line: Line where it starts, from 1.
        value: The parsed JSON value.
        fault: What is wrong with the text, if it could not be parsed.
        number: Its number in an array, from 1.
    """

    line: int
    value: object = None
    fault: str | None = None
    number: int | None = None


def read_text(path: Path) -> str:
    """Read a file; bytes that are no UTF-8 become lone surrogates, so that the field that holds them can be named.

    Args:
        path: The file.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror}; expected a readable file of requests") from error
    if raw.startswith(_UTF16):
        raise RequestError(f"{path}: found UTF-16, expected UTF-8; save the file as UTF-8")
    text = raw.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    if not text.strip():
        raise RequestError(f"{path}: found an empty file, expected at least one request")
    return text


def split_records(text: str) -> Iterator[RawRecord]:
    """Yield the records of a JSON array, or else of JSON lines.

    Args:
        text: The whole file.
    """
    return _array(text) if text.lstrip()[0] == "[" else _lines(text)


def _lines(text: str) -> Iterator[RawRecord]:
    """One record a line; blank lines are skipped, a broken line costs only itself."""
    for number, line in enumerate(text.split("\n"), start=1):  # splitlines() would also split inside strings
        if not line.strip():
            continue
        try:
            yield RawRecord(number, json.loads(line))
        except (json.JSONDecodeError, RecursionError) as error:
            yield RawRecord(number, fault=f"found text that is no JSON ({error}); expected one object on one line")


def _array(text: str) -> Iterator[RawRecord]:
    """Records of one array; where it breaks off, the rest is lost and the last item says so."""
    decoder = json.JSONDecoder()
    position = _skip(text, text.index("[") + 1)
    line, counted, number = 1, 0, 0
    while number or text[position : position + 1] != "]":
        number += 1
        line, counted = line + text.count("\n", counted, position), position
        try:
            value, position = decoder.raw_decode(text, position)
        except (json.JSONDecodeError, RecursionError) as error:
            yield RawRecord(line, None, f"found a record that is no JSON ({error}); {_LOST}, mend the file", number)
            return
        yield RawRecord(line, value, None, number)
        position = _skip(text, position)
        mark = text[position : position + 1]
        if mark == "]":
            break
        if mark != ",":
            what = repr(mark) if mark else "the end of the file"
            yield RawRecord(_line(text, position), fault=f"found {what}, expected ',' or ']'; {_LOST}, mend the file")
            return
        position = _skip(text, position + 1)
    rest = _skip(text, position + 1)
    if rest < len(text):
        yield RawRecord(_line(text, rest), fault="found text after the array's end, expected none; remove it")


def _line(text: str, position: int) -> int:
    """Line of a position, from 1."""
    return 1 + text.count("\n", 0, position)


def _skip(text: str, position: int) -> int:
    """Position of the next character that is not white space."""
    match = _SPACE.match(text, position)
    return match.end() if match else position
