"""MQuAKE (Zhong et al., 2023): one to four edits each, and a question that only follows from all of them.

Every edit of a case becomes a request, with the question of its hop as paraphrase. The three phrasings of the
multi-hop question stand at the case's last edit: by then all of its edits are in the model. So do the hops that no
edit of the case touches: their answers were true before, carry the chain, and must not change.
"""

from lightning_edit.data.readers.counterfact import case_id
from lightning_edit.data.readers.counterfact_rome import fill_template
from lightning_edit.data.readers.format import RequestFormat, optional_tuple
from lightning_edit.fields import Record
from lightning_edit.probes import Probe, ProbeMap
from lightning_edit.requests import EditRequest, normalise


def read(record: Record) -> tuple[EditRequest, ...]:
    """Turn one record into the edits of its case.

    Args:
        record: `{case_id, requested_rewrite[{prompt, relation_id, target_new{str}, target_true{str}, subject,
            question}], questions[], new_answer, new_answer_alias[], single_hops[], new_single_hops[{question, answer,
            answer_alias[]}], ...}`.
    """
    rewrites = record.children("requested_rewrite")
    if not rewrites:
        raise record.fault("requested_rewrite", "found an empty list, expected at least one edit; fill it in")
    hops = record.children("new_single_hops")
    name = case_id(record, "mquake")
    answers = _names(record, "new_answer", "new_answer_alias")
    portability = ProbeMap({"multi_hop": [Probe(text, answers) for text in record.texts("questions")]})
    locality = ProbeMap({"unedited_hop": _unedited(rewrites, hops)})
    requests = []
    for index, rewrite in enumerate(rewrites):
        last = index == len(rewrites) - 1
        target = rewrite.child("target_new").text("str")
        prompt, subject, span = fill_template(rewrite)
        requests.append(
            EditRequest(
                id=f"{name}-{index}",
                prompt=prompt,
                target=target,
                subject=subject,
                subject_span=span,
                old=_old(rewrite, target),
                relation=rewrite.optional_text("relation_id"),
                paraphrases=optional_tuple(rewrite.optional_text("question")),
                locality=locality if last else ProbeMap(),
                portability=portability if last else ProbeMap(),
                target_aliases=_aliases(rewrite, target, hops),
                group=name,
                source=record.source,
            )
        )
    return tuple(requests)


def _old(rewrite: Record, target: str) -> str | None:
    """What was true before; a few edits of MQuAKE-T only confirm it."""
    if not rewrite.has("target_true"):
        return None
    true = rewrite.child("target_true").text("str")
    if true.strip().casefold() != target.strip().casefold():
        return true
    rewrite.note("target_true", f"found the target itself ({true!r}); kept no old answer")
    return None


def _aliases(rewrite: Record, target: str, hops: list[Record]) -> tuple[str, ...]:
    """Other names of the target, from the hop that asks for it."""
    question = rewrite.optional_text("question")
    asked = (hop for hop in hops if question is not None and _same(hop.text("question"), question))
    hop = next((hop for hop in asked if _same(hop.text("answer"), target)), None)
    return hop.texts("answer_alias") if hop else ()


def _unedited(rewrites: list[Record], hops: list[Record]) -> list[Probe]:
    """The hops that no edit of the case asks for."""
    edited = [rewrite.text("question") for rewrite in rewrites if rewrite.has("question")]
    if len(edited) < len(rewrites):
        return []  # without its question nobody can tell which hop an edit changes
    asked = [(hop.text("question"), _names(hop, "answer", "answer_alias")) for hop in hops]
    return [Probe(text, answers) for text, answers in asked if not any(_same(text, other) for other in edited)]


def _names(record: Record, name: str, aliases: str) -> tuple[str, ...]:
    """An answer and its aliases, each once."""
    return tuple(dict.fromkeys(text.strip() for text in (record.text(name), *record.texts(aliases))))


def _same(one: str, other: str) -> bool:
    return normalise(one) == normalise(other)


FORMAT = RequestFormat(
    "MQuAKE",
    frozenset(
        (
            *("case_id", "requested_rewrite", "questions", "answer", "answer_alias", "new_answer", "new_answer_alias"),
            *("single_hops", "new_single_hops", "orig"),
        )
    ),
    read,
)
