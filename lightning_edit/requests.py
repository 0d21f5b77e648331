"""What an edit is: one request with its probes, checked when it is built, so that nobody else has to.

Knows prompts, subjects, targets, and when two requests contradict each other. Refuses to know files and datasets
(`lightning_edit/data/`), models and tokens; the one question that needs a tokenizer, `check_lengths`, borrows one.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lightning_edit.fields import BadRequest, Record, Source, check_text
from lightning_edit.probes import Probe, ProbeMap, plain_probes, probe_map, read_probes, refuse_unknown, text_tuple

__all__ = [
    "REQUEST_FIELDS",
    "EditRequest",
    "Probe",
    "ProbeMap",
    "Source",
    "Tokenizer",
    "check_batch",
    "check_lengths",
    "duplicate_id",
    "find_subject",
    "normalise",
]

Tokenizer = Callable[[list[str]], Mapping[str, Any]]
"""Anything that turns texts into `{"input_ids": [[...], ...]}`, as every tokenizer of transformers does."""


def normalise(text: str) -> str:
    """Fold case, width and runs of white space, so that two spellings of one name compare equal.

    Args:
        text: Any text.

    Example:
        >>> normalise("  Danielle   DARRIEUX ")
        'danielle darrieux'
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def find_subject(prompt: str, subject: str) -> tuple[int, int] | None:
    """Character span of the subject in the prompt, or None.

    The first occurrence counts, as in the published implementations. Tried in this order: verbatim as whole words; as
    whole words whatever the case and white space; verbatim inside a word (inflected forms, scripts without spaces).

    Args:
        prompt: The text to search.
        subject: The name to find.

    Example:
        >>> find_subject("Annette and Ann live in Lyon", "Ann")
        (12, 15)
    """
    verbatim = re.escape(subject)
    loose = r"\s+".join(map(re.escape, subject.split()))
    whole = r"(?<!\w){}(?!\w)"
    tries = ((whole.format(verbatim), 0), (whole.format(loose), re.IGNORECASE), (verbatim, 0))
    hits = (re.search(pattern, prompt, flags) for pattern, flags in tries)
    hit = next((hit for hit in hits if hit), None)
    return hit.span() if hit else None


@dataclass(frozen=True, slots=True)
class EditRequest:
    """One edit: after `prompt`, the model shall say `target`.

    The text an editor teaches is `prompt + " " + target`. White space around texts is stripped. The subject is kept as
    the prompt spells it, so `prompt[slice(*subject_span)] == subject` always holds.

    Args:
        id: Name of the request, unique in its stream.
        prompt: Text before the target.
        target: What the model shall say.
        subject: What the fact is about, as it stands in the prompt; None for editors that need no subject.
        old: What the model is thought to say now.
        relation: Name of the relation, such as `P103`; makes contradictions across phrasings visible.
        paraphrases: Other texts after which the target is right.
        locality: Kind to probes whose answers must not change.
        portability: Kind to probes whose answers follow from the edit.
        sentence: The fact as a full sentence, for editors that read it from context.
        subject_span: Characters `[start, end)` of the subject in `prompt`; found by `find_subject` where not given.
        target_aliases: Other names of the target; an answer with one of them is right as well.
        group: What several requests have in common, such as one event or one case of a multi-hop dataset.
        source: File and line it was read from; never part of a comparison.
    """

    id: str
    prompt: str
    target: str
    subject: str | None = None
    old: str | None = None
    relation: str | None = None
    paraphrases: tuple[str, ...] = ()
    locality: Mapping[str, tuple[Probe, ...]] = field(default_factory=ProbeMap)
    portability: Mapping[str, tuple[Probe, ...]] = field(default_factory=ProbeMap)
    sentence: str | None = None
    subject_span: tuple[int, int] | None = None
    target_aliases: tuple[str, ...] = ()
    group: str | None = None
    source: Source | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        indent = len(self.prompt) - len(self.prompt.lstrip()) if isinstance(self.prompt, str) else 0
        for name in ("id", "prompt", "target", "subject", "old", "relation", "sentence", "group"):
            value = getattr(self, name)
            if value is not None or name in ("id", "prompt", "target"):
                self._set(name, check_text(value, name, self.source).strip())
        self._set("paraphrases", text_tuple(self.paraphrases, "paraphrases", self.source))
        self._set("target_aliases", text_tuple(self.target_aliases, "target_aliases", self.source))
        self._set("locality", probe_map(self.locality, "locality", self.source))
        self._set("portability", probe_map(self.portability, "portability", self.source))
        self._set("subject_span", self._locate(indent))
        if self.subject_span:
            self._set("subject", self.prompt[slice(*self.subject_span)])

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _locate(self, indent: int) -> tuple[int, int] | None:
        """The subject's span in the stripped prompt, from the one given or by search."""
        if self.subject_span is not None:
            start, end = _span(self.subject_span, indent, self.prompt, self.source)
            text = self.prompt[start:end]
            if self.subject is not None and normalise(self.subject) != normalise(text):
                reason = f"found the text {text!r} there, expected the subject {self.subject!r}; correct one of them"
                raise BadRequest(reason, "subject_span", self.source)
            return start, end
        if self.subject is None:
            return None
        span = find_subject(self.prompt, self.subject)
        if span is None:
            reason = f"found no {self.subject!r} in the prompt {self.prompt!r}, expected the subject as a part of it"
            advice = "spell it as the prompt does, or leave the field out for editors that need no subject"
            raise BadRequest(f"{reason}; {advice}", "subject", self.source)
        return span

    @property
    def accepted(self) -> tuple[str, ...]:
        """Every right answer after the prompt: the target and its aliases."""
        return tuple(dict.fromkeys((self.target, *self.target_aliases)))

    @property
    def conflict_key(self) -> tuple[str, str]:
        """What the request is about; two requests with one key and two targets contradict each other.

        The normalised subject with the relation if given, else with the prompt in which the subject is blanked.
        A request without subject is about its whole prompt, whatever its relation.
        """
        if self.subject is None or self.subject_span is None:
            return "", normalise(self.prompt)
        start, end = self.subject_span
        about = self.relation or self.prompt[:start] + "{}" + self.prompt[end:]
        return normalise(self.subject), normalise(about)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON containers in the layout of the package's request files; what is absent is left out."""
        data = {name: getattr(self, name) for name in ("id", "prompt", "subject", "target", "old", "relation")}
        data["paraphrases"] = list(self.paraphrases)
        data["locality"] = plain_probes(self.locality)
        data["portability"] = plain_probes(self.portability)
        data["sentence"] = self.sentence
        data["target_aliases"] = list(self.target_aliases)
        data["group"] = self.group
        if self.subject and self.subject_span != find_subject(self.prompt, self.subject):
            data["subject_span"] = list(self.subject_span or ())
        return {name: value for name, value in data.items() if value}

    @classmethod
    def from_dict(cls, data: Mapping[str, object], source: Source | None = None) -> "EditRequest":
        """Build a request from the layout of the package's request files; every fault names its field.

        Args:
            data: One parsed record, as `to_dict` gives it.
            source: File and line, for messages.
        """
        record = Record(data, source)
        refuse_unknown(record, REQUEST_FIELDS)
        number = record.data.get("id")
        named = isinstance(number, int) and not isinstance(number, bool)
        span = tuple(record.items("subject_span")) if record.has("subject_span") else None
        return cls(
            id=str(number) if named else record.text("id"),
            prompt=record.text("prompt"),
            target=record.text("target"),
            subject=record.optional_text("subject"),
            old=record.optional_text("old"),
            relation=record.optional_text("relation"),
            paraphrases=record.texts("paraphrases"),
            locality=read_probes(record, "locality"),
            portability=read_probes(record, "portability"),
            sentence=record.optional_text("sentence"),
            subject_span=span,  # type: ignore[arg-type]  # its form is checked with the prompt
            target_aliases=record.texts("target_aliases"),
            group=record.optional_text("group"),
            source=source,
        )


REQUEST_FIELDS = tuple(name for name in EditRequest.__dataclass_fields__ if name != "source")
"""The fields of one record in the package's own request files."""


def check_batch(requests: Iterable[EditRequest]) -> None:
    """Refuse a batch in which an id comes twice or two requests contradict each other.

    Across batches a contradiction is fine: the later request replaces the earlier one. Within one batch nothing says
    which is meant. The same fact twice under two ids is no contradiction.

    Args:
        requests: The requests of one commit.
    """
    ids: dict[str, EditRequest] = {}
    facts: dict[tuple[str, str], EditRequest] = {}
    for request in requests:
        if request.id in ids:
            raise duplicate_id(request, ids[request.id].source)
        ids[request.id] = request
        rival = facts.setdefault(request.conflict_key, request)
        if rival.target != request.target:
            reason = (
                f"request '{request.id}' wants {request.target!r} after {request.prompt!r}, but {_label(rival)} of the "
                f"same batch wants {rival.target!r}; drop one of them, or hand them over in two batches"
            )
            raise BadRequest(reason, "target", request.source)


def duplicate_id(request: EditRequest, first: Source | None) -> BadRequest:
    """Build the error for an id that was there before.

    Args:
        request: The later request.
        first: Where the earlier one stands.
    """
    where = f" at {first}" if first else ""
    reason = f"found the id '{request.id}' a second time (first{where}), expected a new one; rename one of them"
    return BadRequest(reason, "id", request.source)


def check_lengths(requests: Iterable[EditRequest], tokenizer: Tokenizer, limit: int) -> None:
    """Refuse requests with a text that does not fit into the model's context.

    Every text is measured with the answer that belongs to it, because the model has to hold both.

    Args:
        requests: The requests to measure.
        tokenizer: Called with a list of texts; its `input_ids` are counted, special tokens included.
        limit: Number of tokens that fit.
    """
    for request in requests:
        names, texts = zip(*_full_texts(request), strict=True)
        for name, tokens in zip(names, tokenizer(list(texts))["input_ids"], strict=True):
            if len(tokens) > limit:
                reason = f"request '{request.id}' needs {len(tokens)} tokens here, expected at most {limit}"
                raise BadRequest(f"{reason} (the model's context); shorten the text or skip it", name, request.source)


def _full_texts(request: EditRequest) -> Iterator[tuple[str, str]]:
    """Every text a model has to hold for this request, with its field: each prompt and its longest answer."""
    target = max(request.accepted, key=len)
    yield "prompt", f"{request.prompt} {target}"
    for index, paraphrase in enumerate(request.paraphrases):
        yield f"paraphrases[{index}]", f"{paraphrase} {target}"
    for name, kinds in (("locality", request.locality), ("portability", request.portability)):
        for kind, probes in kinds.items():
            for index, probe in enumerate(probes):
                longest = max(probe.answers, key=len, default="")
                yield f"{name}.{kind}[{index}].prompt", f"{probe.prompt} {longest}".rstrip()


def _label(request: EditRequest) -> str:
    return f"'{request.id}'" + (f" ({request.source})" if request.source else "")


def _span(span: object, indent: int, prompt: str, source: Source | None) -> tuple[int, int]:
    """A span given by hand, moved by the white space stripped from the prompt's left, if it lies inside the prompt."""
    pair = span if isinstance(span, list | tuple) else ()
    numbers = [number - indent for number in pair if type(number) is int]
    if len(pair) != 2 or len(numbers) != 2 or not 0 <= numbers[0] < numbers[1] <= len(prompt):
        reason = f"found {span!r}, expected [start, end) inside the prompt of {len(prompt)} characters"
        raise BadRequest(f"{reason}; correct it or leave it out", "subject_span", source)
    return numbers[0], numbers[1]
