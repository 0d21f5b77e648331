"""CounterFact in its first form (ROME, MEMIT): a template with `{}` for the subject, two paraphrases, ten neighbours.

The neighbours share the old answer. `attribute_prompts` (subjects for which the new target is true) and
`generation_prompts` belong to measures that are not asked here and are not read.
"""

from lightning_edit.data.readers.counterfact import case_id
from lightning_edit.data.readers.format import RequestFormat, previous_answer
from lightning_edit.fields import Record
from lightning_edit.probes import Probe, ProbeMap
from lightning_edit.requests import EditRequest


def fill_template(rewrite: Record) -> tuple[str, str, tuple[int, int]]:
    """Put the subject into the template of an edit.

    Args:
        rewrite: `{prompt, subject, ...}` with `{}` in the prompt where the subject stands.

    Returns:
        The prompt, the subject and the characters [start, end) where it stands.
    """
    subject = rewrite.text("subject").strip()
    template = rewrite.text("prompt")
    start = template.find("{}")
    if start < 0:
        raise rewrite.fault("prompt", f"found {template!r}, expected '{{}}' where the subject stands; put it in")
    return template.replace("{}", subject), subject, (start, start + len(subject))


def read(record: Record) -> EditRequest:
    """Turn one record into a request.

    Args:
        record: `{case_id, requested_rewrite{prompt, subject, relation_id?, target_new{str}, target_true{str}},
            paraphrase_prompts[], neighborhood_prompts[], ...}`.
    """
    rewrite = record.child("requested_rewrite")
    target = rewrite.child("target_new").text("str")
    prompt, subject, span = fill_template(rewrite)
    true = rewrite.child("target_true") if rewrite.has("target_true") else None
    known = true.answers("str") if true else ()
    return EditRequest(
        id=case_id(record),
        prompt=prompt,
        target=target,
        subject=subject,
        subject_span=span,
        old=previous_answer(true, "str", target) if true else None,
        relation=rewrite.optional_text("relation_id"),
        paraphrases=record.texts("paraphrase_prompts"),
        locality=ProbeMap({"neighborhood": [Probe(text, known) for text in record.texts("neighborhood_prompts")]}),
        source=record.source,
    )


FORMAT = RequestFormat(
    "CounterFact, ROME's form",
    frozenset(
        (
            *("case_id", "pararel_idx", "requested_rewrite", "paraphrase_prompts"),
            *("neighborhood_prompts", "attribute_prompts", "generation_prompts"),
        )
    ),
    read,
)
