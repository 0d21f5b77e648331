"""QAEdit (Yang et al., 2025): questions of Natural Questions, TriviaQA and SimpleQA that models get wrong.

The target is the benchmark's own right answer, so nothing is known of what a model says before. `source` names the
benchmark (`NQ`, `TQA`, `SQA`) and is not read.
"""

from lightning_edit.data.readers.format import RequestFormat, optional_tuple
from lightning_edit.fields import Record
from lightning_edit.probes import Probe, ProbeMap
from lightning_edit.requests import EditRequest


def read(record: Record) -> EditRequest:
    """Turn one record into a request.

    Args:
        record: `{id, source, prompt, target, subject, rephrase, locality[{loc, loc_ans}]}`.
    """
    number = record.require("id")
    return EditRequest(
        id=f"qaedit-{number if type(number) is int else record.text('id')}",
        prompt=record.text("prompt"),
        target=record.text("target"),
        subject=record.optional_text("subject"),
        paraphrases=optional_tuple(record.optional_text("rephrase")),
        locality=ProbeMap(
            {"nq": [Probe(item.text("loc"), item.answers("loc_ans")) for item in record.children("locality")]}
        ),
        source=record.source,
    )


FORMAT = RequestFormat(
    "QAEdit", frozenset(("id", "source", "prompt", "target", "subject", "rephrase", "locality")), read
)
