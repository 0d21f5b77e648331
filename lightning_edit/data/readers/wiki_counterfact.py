"""KnowEdit's wiki_counterfact: statements about well-known subjects, with many probes and lists of aliases.

A probe's answers are a list of alias lists; any alias of any of them is right, so they become one flat tuple. The train
split has no `rephrase` and plain strings as answers. Records have no id: the position in the file is theirs.
"""

from lightning_edit.data.readers.format import RequestFormat, optional_tuple, previous_answer, probes_by_kind
from lightning_edit.fields import Record
from lightning_edit.requests import EditRequest


def read(record: Record) -> EditRequest:
    """Turn one record into a request.

    Args:
        record: `{subject, prompt, target_new, ground_truth, rephrase?, locality, portability}`.
    """
    target = record.text("target_new")
    return EditRequest(
        id=f"wiki_counterfact-{record.index}",
        prompt=record.text("prompt"),
        target=target,
        subject=record.text("subject"),
        old=previous_answer(record, "ground_truth", target),
        paraphrases=optional_tuple(record.optional_text("rephrase")),
        locality=probes_by_kind(record, "locality"),
        portability=probes_by_kind(record, "portability"),
        source=record.source,
    )


FORMAT = RequestFormat(
    "KnowEdit wiki_counterfact",
    frozenset(("subject", "prompt", "target_new", "ground_truth", "rephrase", "locality", "portability")),
    read,
)
