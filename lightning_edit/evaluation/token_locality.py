"""Token-level locality of a model: its greedy continuations against those it wrote before any edit.

The unedited model writes once, for all probes; its tokens travel in checkpoints as plain lists.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from lightning_edit.decoding import decode_tokens
from lightning_edit.errors import StateError
from lightning_edit.evaluation.answering import AnswerOptions
from lightning_edit.evaluation.protocol import Protocol, Scores
from lightning_edit.evaluation.questions import LOCALITY, locality_prompts, make_questions
from lightning_edit.metrics.token_locality import TokenLocality
from lightning_edit.model.language_model import as_language_model
from lightning_edit.requests import EditRequest

VERSION = 1


@dataclass(slots=True)
class TokenBaseline:
    """The unedited model's greedy continuations of locality probes.

    Args:
        length: Longest continuation in tokens.
        options: Chat template and batch size; what ends an answer plays no part here.
        tokens: Prompt to the token ids behind it.
    """

    length: int = 50
    options: AnswerOptions = field(default_factory=AnswerOptions)
    tokens: dict[str, list[int]] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        """Plain containers only."""
        tokens = {prompt: list(ids) for prompt, ids in self.tokens.items()}
        return {"version": VERSION, "length": self.length, "tokens": tokens, **_template(self.options)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved baseline.

        Args:
            state: What `state_dict` gave.
        """
        if state.get("version") != VERSION:
            raise StateError(
                f"found a token baseline of version {state.get('version')}, expected {VERSION}; measure it again on "
                "the unedited model."
            )
        template = {name: state[name] for name in ("chat", "system", "reasoning")}
        self.options = AnswerOptions(batch_size=self.options.batch_size, **template)
        self.length = state["length"]
        self.tokens = {prompt: list(ids) for prompt, ids in state["tokens"].items()}


def measure_token_baseline(
    module: object,
    requests: Iterable[EditRequest],
    length: int = 50,
    options: AnswerOptions | None = None,
    into: TokenBaseline | None = None,
) -> TokenBaseline:
    """Let the unedited model continue all locality probes.

    Args:
        module: An `EditableModule` or a `LanguageModel`, before any edit.
        requests: The requests whose probes are continued.
        length: Longest continuation in tokens.
        options: Chat template and batch size.
        into: A baseline to complete: only what it lacks is written, as long and as it was before.
    """
    baseline = into or TokenBaseline(length, options or AnswerOptions())
    missing = [prompt for prompt in locality_prompts(requests) if prompt not in baseline.tokens]
    baseline.tokens.update(zip(missing, _continue(module, missing, baseline), strict=True))
    return baseline


def evaluate_token_locality(
    module: object,
    requests: Iterable[EditRequest],
    baseline: TokenBaseline,
    active: Iterable[EditRequest] | None = None,
) -> Scores:
    """Match ratio and exact match of greedy continuations with those of the unedited model.

    Keys: `token_locality/match_ratio` and `token_locality/exact_match`; none without probes. Every probe weighs the
    same. A probe that asks word for word what an edit changes is left out.

    Args:
        module: An `EditableModule` or a `LanguageModel`.
        requests: The requests whose probes are continued.
        baseline: What the unedited model wrote, from `measure_token_baseline`.
        active: All edits the model carries, if more than are asked about.
    """
    asked = list(requests)
    known = dict.fromkeys(locality_prompts(asked), "")
    missing = [prompt for prompt in known if prompt not in baseline.tokens]
    if missing:
        raise StateError(
            f"the baseline holds no continuation of {missing[0]!r} and {len(missing) - 1} more; expected every probe "
            "written before any edit. Call measure_token_baseline on the unedited model with all requests."
        )
    questions = make_questions(asked, known, active)
    prompts = [question.prompt for question in questions if question.dimension == LOCALITY]
    metric = TokenLocality()
    metric.update([baseline.tokens[prompt] for prompt in prompts], _continue(module, prompts, baseline))
    values = {name: value.item() for name, value in metric.compute().items()} if prompts else {}
    protocol = Protocol(
        "greedy", "same_tokens", locality="unedited", max_new_tokens=baseline.length, until="end",
        **_template(baseline.options),
    )  # fmt: skip
    return Scores(values, protocol)


def _continue(module: object, prompts: list[str], baseline: TokenBaseline) -> list[list[int]]:
    how = baseline.options
    return decode_tokens(as_language_model(module), prompts, baseline.length, how.batch_size, how.template)


def _template(options: AnswerOptions) -> dict[str, Any]:
    return {"chat": options.chat, "system": options.system, "reasoning": options.reasoning}
