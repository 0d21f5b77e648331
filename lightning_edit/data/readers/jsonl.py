"""The package's own request files: one JSON object a line, every field of `EditRequest` by its name.

The only format in which an unknown field is an error: here it can only be a slip.
"""

from lightning_edit.data.readers.format import RequestFormat
from lightning_edit.fields import Record
from lightning_edit.requests import REQUEST_FIELDS, EditRequest


def read(record: Record) -> EditRequest:
    """Turn one record into a request.

    Args:
        record: `{id, prompt, target, subject?, old?, relation?, paraphrases[], locality{kind: [{prompt, answers[]}]},
            portability{same}, sentence?, subject_span?}`.
    """
    return EditRequest.from_dict(record.data, record.source)


FORMAT = RequestFormat("the package's own JSONL", frozenset(REQUEST_FIELDS), read)
