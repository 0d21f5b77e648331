"""What the model said before any edit: the yardstick of locality.

A baseline is prompts and answers, and how they were read; it is measured once on the unedited model, travels in
checkpoints as plain containers, and is never measured again on a model that has been edited.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from lightning_edit.errors import StateError
from lightning_edit.evaluation.answering import AnswerOptions, say
from lightning_edit.evaluation.questions import locality_prompts
from lightning_edit.model.language_model import as_language_model
from lightning_edit.requests import EditRequest

VERSION = 1


@dataclass(slots=True)
class Baseline:
    """The unedited model's answers.

    Args:
        options: How they were decoded; an answer cut at another length is another answer.
        answers: Prompt to answer.
    """

    options: AnswerOptions = field(default_factory=AnswerOptions)
    answers: dict[str, str] = field(default_factory=dict)

    def missing(self, requests: Iterable[EditRequest]) -> list[str]:
        """Locality prompts of these requests that have not been measured.

        Args:
            requests: The requests.
        """
        return [prompt for prompt in locality_prompts(requests) if prompt not in self.answers]

    @property
    def silent(self) -> list[str]:
        """Prompts to which the unedited model said nothing: there a model that says nothing counts as unchanged."""
        return [prompt for prompt, answer in self.answers.items() if not answer]

    def check(self, options: AnswerOptions) -> None:
        """Refuse a comparison with answers that are decoded otherwise.

        Args:
            options: How the edited model is to be decoded.
        """
        mine, other = self.options.wording(), options.wording()
        if mine != other:
            raise StateError(
                f"the baseline was measured with {mine}, the evaluation wants {other}; expected the same. "
                "Give both the same AnswerOptions, or leave them out of the evaluation."
            )

    def state_dict(self) -> dict[str, Any]:
        """Plain containers only."""
        return {"version": VERSION, "answers": dict(self.answers), **self.options.wording()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved baseline.

        Args:
            state: What `state_dict` gave.
        """
        if state.get("version") != VERSION:
            raise StateError(
                f"found a baseline of version {state.get('version')}, expected {VERSION}; measure it again on the "
                "unedited model."
            )
        known = {option.name: state[option.name] for option in fields(AnswerOptions) if option.name in state}
        self.options = AnswerOptions(batch_size=self.options.batch_size, **known)
        self.answers = dict(state["answers"])


def measure_baseline(
    module: object,
    requests: Iterable[EditRequest],
    options: AnswerOptions | None = None,
    into: Baseline | None = None,
) -> Baseline:
    """Ask the unedited model all locality probes.

    Args:
        module: An `EditableModule` or a `LanguageModel`, before any edit.
        requests: The requests whose probes are asked.
        options: How to decode; the defaults, or those of `into`.
        into: A baseline to complete: only what it lacks is asked, and it is returned.

    Warns:
        UserWarning: A reasoning model did not come to the end of its thoughts; locality says nothing there.
    """
    baseline = into or Baseline(options or AnswerOptions())
    if options is not None:
        baseline.check(options)
    missing = baseline.missing(requests)
    baseline.answers.update(say(as_language_model(module), missing, options or baseline.options))
    silent = [prompt for prompt in missing if not baseline.answers[prompt]]
    if silent and baseline.options.reasoning:
        warnings.warn(
            f"{len(silent)} of {len(missing)} answers of the unedited model are empty, the first to "
            f"{silent[0][:80]!r}: it did not come to the end of its thoughts. An edited model that says nothing there "
            f"counts as unchanged. Raise max_new_tokens ({baseline.options.max_new_tokens}).",
            stacklevel=2,
        )
    return baseline
