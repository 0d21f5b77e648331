"""How a number came about, kept beside the number.

Two shares of right answers can be compared only if the answers were decoded, read and judged alike, so every function
here that measures a model returns `Scores`: plain numbers by name, and the `Protocol` they were measured under. This
file knows the words for it and runs no model.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Protocol:
    """What has to be the same for two numbers to be comparable.

    Args:
        decode: Where the answer came from: `greedy` (the model wrote it), `teacher_forced` (the likeliest token behind
            each true one), `likelihood` (no answer, two given ones compared), `top_k` (sampled).
        judge: What counted: `exact_match`, `target_tokens`, `new_over_old`, ...
        average: What weighs the same: `probes` (micro) or `records` (mean over records of the mean within each).
        locality: What locality probes are held against: `unedited` (the model before any edit), `gold` (the dataset's
            answers); None where it does not come up.
        max_new_tokens: Longest answer in tokens; None where nothing is written.
        thought_tokens: Longest text behind a prompt that asks for thoughts.
        until: Where an answer ends: `sentence`, `line` or `end`.
        chat: Whether prompts went through the tokenizer's chat template.
        system: What the system said first.
        reasoning: Whether only the text after the thoughts counted.
        detail: Anything else that matters, such as `mean log-probability per token`.
    """

    decode: str
    judge: str
    average: str = "probes"
    locality: str | None = None
    max_new_tokens: int | None = None
    thought_tokens: int | None = None
    until: str | None = None
    chat: bool = False
    system: str | None = None
    reasoning: bool = False
    detail: str | None = None

    @property
    def name(self) -> str:
        """The protocol on one line, for the columns of a table.

        Example:
            >>> Protocol("greedy", "exact_match", locality="unedited", max_new_tokens=50, until="sentence").name
            'greedy-50, to sentence, exact_match, by probes, locality unedited'
        """
        parts = [self.decode if self.max_new_tokens is None else f"{self.decode}-{self.max_new_tokens}"]
        parts += [f"to {self.until}"] if self.until else []
        parts += ["chat"] if self.chat else []
        parts += ["after thoughts"] if self.reasoning else []
        parts += [self.judge, f"by {self.average}"]
        parts += [f"locality {self.locality}"] if self.locality else []
        return ", ".join([*parts, *([self.detail] if self.detail else [])])

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, without what does not come up."""
        return {name: value for name, value in asdict(self).items() if value not in (None, False)}


class Scores(dict[str, float]):
    """Numbers by name, with the protocol they were measured under.

    An ordinary dictionary to everybody who does not ask: it compares, merges and serialises as one.

    Args:
        values: The numbers.
        protocol: How they came about.

    Example:
        >>> scores = Scores({"reliability": 0.5}, Protocol("teacher_forced", "target_tokens"))
        >>> scores == {"reliability": 0.5}, scores.protocol.decode
        (True, 'teacher_forced')
        >>> scores.row()
        {'reliability': 0.5, 'protocol': 'teacher_forced, target_tokens, by probes'}
    """

    def __init__(self, values: Mapping[str, float], protocol: Protocol) -> None:
        super().__init__(values)
        self.protocol = protocol

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self), self.protocol)

    def row(self) -> dict[str, float | str]:
        """The numbers with the protocol's name among them, as one row of a table."""
        return {**self, "protocol": self.protocol.name}
