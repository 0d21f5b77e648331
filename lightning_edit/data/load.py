"""Request files, read into `EditRequest`s; what is bad is named, and either stops the reading or is left out.

Knows how to tell the formats of `lightning_edit/data/readers/` apart by looking. Refuses to know when an edit is due
(`lightning_edit/data/stream.py`) and what it does to a model.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

from lightning_edit.data.hub import local_file
from lightning_edit.data.readers import FORMATS, RequestFormat
from lightning_edit.data.records import RawRecord, read_text, split_records
from lightning_edit.errors import RequestError
from lightning_edit.fields import BadRequest, Finding, Record, Source, check_encoding, found
from lightning_edit.requests import EditRequest, Tokenizer, check_lengths, duplicate_id

OnBad = Literal["raise", "skip"]

_LOOK_AT = 16  # records that decide which format a file has


class RequestList(list[EditRequest]):
    """The requests of a file, with what else there is to say about it.

    Attributes:
        skipped: The records left out under `on_bad="skip"`.
        notes: Records read otherwise than to the letter, and requests that replace an earlier one of the file.
        format: Name of the recognised format.
    """

    def __init__(self, requests: Iterable[EditRequest] = (), format: str = "") -> None:
        super().__init__(requests)
        self.skipped: list[Finding] = []
        self.notes: list[Finding] = []
        self.format = format

    def report(self) -> str:
        """One line per skipped record, under a line that counts them."""
        head = f"read {len(self)} requests ({self.format}), skipped {len(self.skipped)}"
        return "\n".join([head, *map(str, self.skipped)])


def load_requests(
    path: str | Path,
    on_bad: OnBad = "raise",
    tokenizer: Tokenizer | None = None,
    max_tokens: int | None = None,
) -> RequestList:
    """Read a file of edit requests, in the package's own JSONL or one of the published formats.

    The format is recognised by the fields of the first records. A contradiction between two requests of one file is
    no fault, since the later one replaces the earlier in a stream, but it is noted (`check_batch` refuses it within one
    batch). A file that is empty, unreadable or of an unknown format raises even under `on_bad="skip"`. Where a record
    gives several requests, such as an event, one that is bad costs the whole record.

    Args:
        path: The file, or a file of a dataset on the Hugging Face Hub: `hf://datasets/<owner>/<name>/<file>`, with
            `@<revision>` behind the name for another than the newest.
        on_bad: `raise` stops at the first bad record, `skip` leaves it out and keeps its file, line, field and reason.
        tokenizer: If given with `max_tokens`, requests whose texts are longer count as bad.
        max_tokens: Number of tokens the model's context holds.
    """
    check_choice(on_bad)
    if (tokenizer is None) != (max_tokens is None):
        raise RequestError("found one of `tokenizer` and `max_tokens`, expected both or neither")
    path = local_file(path)
    records = list(split_records(read_text(path)))
    if not records:
        raise RequestError(f"{path}: found an empty array, expected at least one request")
    layout = recognise(path, records)
    result = RequestList(format=layout.name if layout else "unknown")
    seen: dict[str, Source | None] = {}
    for index, raw in enumerate(records):
        notes: list[Finding] = []
        try:
            requests = _read(raw, index, layout, Source(str(path), raw.line, raw.number), notes)
            for request in requests:
                if request.id in seen:
                    raise duplicate_id(request, seen[request.id])
            if tokenizer is not None and max_tokens is not None:
                check_lengths(requests, tokenizer, max_tokens)
        except BadRequest as fault:
            if on_bad == "raise":
                raise
            result.skipped.append(fault.finding())
        else:
            seen.update((request.id, request.source) for request in requests)
            result.extend(requests)
            result.notes.extend(notes)
    result.notes.extend(_replacements(result))
    return result


def recognise(path: Path, records: Sequence[RawRecord]) -> RequestFormat | None:
    """The format whose fields the first records share most; None where no record is an object.

    Every field a format knows speaks for it, every other one against it; in a tie the order of `FORMATS` decides.

    Args:
        path: The file, for the message.
        records: Its records.
    """
    objects = list(islice((set(r.value) for r in records if isinstance(r.value, Mapping)), _LOOK_AT))
    if not objects:
        return None
    scores = [sum(len(keys & f.fields) - len(keys - f.fields) for keys in objects) for f in FORMATS]
    if max(scores) <= 0:
        names = "; ".join(f"{layout.name}: {', '.join(sorted(layout.fields))}" for layout in FORMATS)
        fields = ", ".join(sorted(map(str, objects[0]))) or "none"
        raise RequestError(f"{path}: found records with the fields {fields}; expected those of one format ({names})")
    return FORMATS[scores.index(max(scores))]


def _read(
    raw: RawRecord, index: int, layout: RequestFormat | None, source: Source, notes: list[Finding]
) -> tuple[EditRequest, ...]:
    """One record as a request of the file's format, or as several."""
    if raw.fault is not None:
        raise BadRequest(raw.fault, None, source)
    if layout is None or not isinstance(raw.value, Mapping):
        raise BadRequest(f"found {found(raw.value)}, expected an object; correct the record", None, source)
    check_encoding(raw.value, source)
    requests = layout.read(Record(raw.value, source, index, notes))
    return requests if isinstance(requests, tuple) else (requests,)


def _replacements(requests: Iterable[EditRequest]) -> Iterator[Finding]:
    """A note for every request that wants another target for what an earlier one was about."""
    latest: dict[tuple[str, str], EditRequest] = {}
    for request in requests:
        earlier = latest.get(request.conflict_key)
        if earlier is not None and earlier.target != request.target:
            reason = f"'{request.id}' wants {request.target!r} where '{earlier.id}' wanted {earlier.target!r}"
            yield Finding.at(request.source, "target", f"{reason}; the later one replaces it")
        latest[request.conflict_key] = request


def check_choice(on_bad: str) -> None:
    """Refuse any `on_bad` that is neither `raise` nor `skip`.

    Args:
        on_bad: The user's choice.
    """
    if on_bad not in ("raise", "skip"):
        raise RequestError(f"found on_bad={on_bad!r}, expected 'raise' or 'skip'")
