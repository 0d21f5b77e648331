"""CounterFact in its flat form (EasyEdit): one paraphrase and one neighbour per record.

Many paraphrases open with an unrelated sentence. That is the dataset's point, distraction, so they are kept whole, line
breaks included.
"""

from lightning_edit.data.readers.format import RequestFormat, optional_tuple, previous_answer, single_probe
from lightning_edit.fields import Record
from lightning_edit.requests import EditRequest


def case_id(record: Record, dataset: str = "counterfact") -> str:
    """Name a request after the record's `case_id`, the same in both forms of the dataset.

    Args:
        record: The record.
        dataset: What stands before the number.
    """
    number = record.require("case_id")
    return f"{dataset}-{number if type(number) is int else record.text('case_id')}"


def read(record: Record) -> EditRequest:
    """Turn one record into a request.

    Args:
        record: `{case_id, prompt, target_new, subject, ground_truth, rephrase_prompt, locality_prompt,
            locality_ground_truth}`.
    """
    target = record.text("target_new")
    return EditRequest(
        id=case_id(record),
        prompt=record.text("prompt"),
        target=target,
        subject=record.text("subject"),
        old=previous_answer(record, "ground_truth", target),
        paraphrases=optional_tuple(record.optional_text("rephrase_prompt")),
        locality=single_probe(record, "neighborhood", "locality_prompt", "locality_ground_truth"),
        source=record.source,
    )


FORMAT = RequestFormat(
    "CounterFact, flat",
    frozenset(
        (
            *("case_id", "prompt", "target_new", "subject", "ground_truth"),
            *("rephrase_prompt", "locality_prompt", "locality_ground_truth"),
        )
    ),
    read,
)
