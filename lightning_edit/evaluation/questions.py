"""What is asked: requests spread out into questions with their right answers.

Knows the four dimensions and which part of a request belongs to which. Refuses to know how a question is answered
(`answering.py`) and which requests are worth asking (`evaluator.py`).
"""

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass

from lightning_edit.errors import StateError
from lightning_edit.requests import EditRequest, normalise

RELIABILITY, GENERALIZATION, LOCALITY, PORTABILITY = "reliability", "generalization", "locality", "portability"
LOCALITY_GOLD = "locality_gold"
"""Locality probes judged by the dataset's answers: the accuracy on unrelated facts, not what editing changed."""
DIMENSIONS = (RELIABILITY, GENERALIZATION, LOCALITY, LOCALITY_GOLD, PORTABILITY)


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt and what counts as right after it.

    Args:
        request: Id of the request it belongs to.
        dimension: One of `DIMENSIONS`.
        prompt: Text the model continues.
        accepted: Any of these is right.
        kind: Kind of the probe; None for reliability and generalization.
    """

    request: str
    dimension: str
    prompt: str
    accepted: tuple[str, ...]
    kind: str | None = None


def make_questions(
    requests: Iterable[EditRequest],
    unedited: Mapping[str, str] | None = None,
    active: Iterable[EditRequest] | None = None,
) -> list[Question]:
    """Spread requests out into questions.

    A locality probe that asks word for word what an active edit changes is left out: its answer is meant to change.

    Args:
        requests: The requests to ask about.
        unedited: Locality prompt to the unedited model's answer. None: the dataset's answers are taken, under the
            name `locality_gold`, and probes without any are left out.
        active: All requests the model carries, if more than are asked about.
    """
    asked = list(requests)
    changed = {normalise(text) for request in (active or asked) for text in (request.prompt, *request.paraphrases)}
    questions: list[Question] = []
    for request in asked:
        questions.append(Question(request.id, RELIABILITY, request.prompt, request.accepted))
        questions += [Question(request.id, GENERALIZATION, text, request.accepted) for text in request.paraphrases]
        questions += _locality(request, unedited, changed)
        for kind, probes in request.portability.items():
            questions += [Question(request.id, PORTABILITY, probe.prompt, probe.answers, kind) for probe in probes]
    return questions


def locality_prompts(requests: Iterable[EditRequest]) -> list[str]:
    """The distinct prompts of all locality probes, in order.

    Args:
        requests: The requests.
    """
    return list(dict.fromkeys(p.prompt for r in requests for probes in r.locality.values() for p in probes))


def _locality(request: EditRequest, unedited: Mapping[str, str] | None, changed: Container[str]) -> Iterator[Question]:
    for kind, probes in request.locality.items():
        for probe in probes:
            if normalise(probe.prompt) in changed:
                continue
            if unedited is None:
                if probe.answers:
                    yield Question(request.id, LOCALITY_GOLD, probe.prompt, probe.answers, kind)
            elif probe.prompt in unedited:
                yield Question(request.id, LOCALITY, probe.prompt, (unedited[probe.prompt],), kind)
            else:
                raise StateError(
                    f"the baseline has no answer to {probe.prompt!r}, a locality probe of request '{request.id}'; "
                    "expected every probe measured before any edit. Call measure_baseline on the unedited model with "
                    "all requests."
                )
