"""WISE's hallucination set (SelfCheckGPT): passages about people, and the sentence that should come next.

The prompt is the passage so far, its first line naming the subject in lower case; the target is a whole sentence of
the true article, where a model made one up. Locality is a page of the web, cut after 150 characters wherever that
falls, and its continuation: where the cut goes through a word, the dataset's answer begins in the middle of it, so
compare with the model before any edit. Records have no id: the position in the file is theirs.
"""

from lightning_edit.data.readers.format import RequestFormat
from lightning_edit.fields import Record
from lightning_edit.probes import Probe, ProbeMap
from lightning_edit.requests import EditRequest


def read(record: Record) -> EditRequest:
    """Turn one record into a request.

    Args:
        record: `{prompt, target_new, subject, locality_prompt, locality_ground_truth}`.
    """
    return EditRequest(
        id=f"wise_hallucination-{record.index}",
        prompt=record.text("prompt"),
        target=record.text("target_new"),
        subject=record.text("subject"),
        locality=_locality(record),
        source=record.source,
    )


def _locality(record: Record) -> ProbeMap:
    """The unrelated text; five of the published 306 go on with nothing, and have no answer to compare with."""
    if not record.has("locality_prompt"):
        return ProbeMap()
    following = record.data.get("locality_ground_truth")
    if following is None or (isinstance(following, str) and not following.strip()):
        record.note("locality_ground_truth", "found no text; kept the probe without an answer")
        answers: tuple[str, ...] = ()
    else:
        answers = (record.text("locality_ground_truth"),)
    return ProbeMap({"unrelated": [Probe(record.text("locality_prompt"), answers)]})


FORMAT = RequestFormat(
    "WISE hallucination",
    frozenset(("prompt", "target_new", "subject", "locality_prompt", "locality_ground_truth")),
    read,
)
