"""What a monitor asks outside of training: about the edits at work, with what a checkpoint holds of the unedited model.

Knows what may be missing there: the stream of requests, and answers that only the unedited model can give. Refuses to
know the Trainer.
"""

import dataclasses
from collections.abc import Collection, Sequence

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lightning_edit.callbacks.edit_session import EditSession
from lightning_edit.callbacks.examiner import Examiner
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.requests import EditRequest


def ask_alone(examiner: Examiner, session: EditSession, lm: LanguageModel) -> dict[str, float] | None:
    """Ask about all edits at work, on rank zero; None where there are none, which is said.

    Where the stream is not known, those that were replaced are not either, and others are drawn in their place.

    Args:
        examiner: Asks, and remembers what the unedited model said.
        session: The edits.
        lm: The language model, with its edits.
    """
    active = session.active_requests()
    if not active:
        rank_zero_warn(
            f"EditMonitor found no edits at work in the model, after {session.count} requests, and asks nothing; "
            "expected a model that was edited in this process, or a checkpoint: ckpt_path=... Which requests a control "
            "run was given is known in its own process alone."
        )
        return None
    if examiner.baseline is None:
        rank_zero_warn(
            "EditMonitor has no answers of the unedited model, so locality is left out; expected a checkpoint of a run "
            "with EditMonitor among the callbacks."
        )
    answered = {} if examiner.baseline is None else examiner.baseline.answers
    return examiner.examine(lm, comparable(session.handed_over() or active, answered), active)[0]


def comparable(requests: Sequence[EditRequest], answered: Collection[str]) -> list[EditRequest]:
    """Requests with those locality probes alone whose answers can be compared.

    Args:
        requests: The requests.
        answered: Prompts that the unedited model was asked.
    """
    return [
        dataclasses.replace(
            one,
            locality={
                kind: tuple(probe for probe in probes if probe.prompt in answered)
                for kind, probes in one.locality.items()
            },
        )
        for one in requests
    ]
