"""zsRE as MEND was trained on it: a question, another answer to teach, and a Natural Questions probe.

`alt` is the target and `answers` what is true; `pred`, the prediction of a model that nobody has, and `cond`, which
repeats the record, are not read. The locality text keeps its task mark `nq question:`, as published evaluations use it.
Where `alt` is empty (two records of the published sample of 1,000) the record's own first answer is the target, and a
note says so.
"""

from lightning_edit.data.readers.format import RequestFormat, optional_tuple, previous_answer, single_probe
from lightning_edit.fields import Record
from lightning_edit.requests import EditRequest


def _target(record: Record) -> str:
    alternative = record.require("alt")
    if alternative != "":
        return record.text("alt")
    target = record.answers("answers")[0]
    record.note("alt", f"found an empty string; took the record's own answer {target!r} as the target")
    return target


def read(record: Record) -> EditRequest:
    """Turn one record into a request.

    Args:
        record: `{subject, src, pred, rephrase, alt, answers[], loc, loc_ans, cond}`.
    """
    target = _target(record)
    return EditRequest(
        id=f"zsre_mend-{record.index}",
        prompt=record.text("src"),
        target=target,
        subject=record.text("subject"),
        old=previous_answer(record, "answers", target),
        paraphrases=optional_tuple(record.optional_text("rephrase")),
        locality=single_probe(record, "nq", "loc", "loc_ans"),
        source=record.source,
    )


FORMAT = RequestFormat(
    "zsRE, MEND's training form",
    frozenset(("subject", "src", "pred", "rephrase", "alt", "answers", "loc", "loc_ans", "cond")),
    read,
)
