"""KnowEdit's ZsRE: questions, with locality about the subject and one kind of portability per record.

`ground_truth` is a list of earlier answers; the legacy field `cond` repeats the record and is not read. Records have no
id: the position in the file is theirs.
"""

from lightning_edit.data.readers.format import RequestFormat, optional_tuple, previous_answer, probes_by_kind
from lightning_edit.fields import Record
from lightning_edit.requests import EditRequest


def read(record: Record) -> EditRequest:
    """Turn one record into a request.

    Args:
        record: `{subject, prompt, target_new, ground_truth[], rephrase_prompt, cond, locality, portability}`.
    """
    target = record.text("target_new")
    return EditRequest(
        id=f"zsre-{record.index}",
        prompt=record.text("prompt"),
        target=target,
        subject=record.text("subject"),
        old=previous_answer(record, "ground_truth", target),
        paraphrases=optional_tuple(record.optional_text("rephrase_prompt")),
        locality=probes_by_kind(record, "locality"),
        portability=probes_by_kind(record, "portability"),
        source=record.source,
    )


FORMAT = RequestFormat(
    "KnowEdit ZsRE",
    frozenset(
        ("subject", "prompt", "target_new", "ground_truth", "rephrase_prompt", "cond", "locality", "portability")
    ),
    read,
)
