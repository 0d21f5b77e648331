"""MEND on the embedded model: single edits hold, and sixty in sequence leave a model that says nothing right.

Its network learns from updates of the model without edits, a few dozen of them here. What it makes of a model that
carries others already nobody taught it (Revisiting, arXiv 2606.00570, reports the same of large models).
"""

from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as pl
import pytest

from lightning_edit import EditableModule, get_editor
from lightning_edit.data.world.edits import world_requests
from lightning_edit.data.world.facts import World
from lightning_edit.editors.editor import Editor
from lightning_edit.editors.mend.data import MENDLessons
from lightning_edit.editors.mend.training import MENDTraining
from lightning_edit.evaluation import AnswerOptions, say
from lightning_edit.judge import exact_match
from lightning_edit.requests import EditRequest

STEPS, BATCH, ALONE, SEQUENCE = 6, 8, 20, 60
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe's network after six of its steps; it is trained on requests that are drawn with other seeds."""
    folder = tmp_path_factory.mktemp("mend")
    pl.seed_everything(0, verbose=False)
    trainer = pl.Trainer(
        max_steps=STEPS,
        limit_val_batches=0,
        accelerator="cpu",
        gradient_clip_val=100.0,
        default_root_dir=folder,
        **QUIET,
    )
    trainer.fit(
        MENDTraining("embedded", rank=256, lr=1e-5, rate_lr=1e-4), MENDLessons(count=STEPS * BATCH, batch_size=BATCH)
    )
    return folder / "mend.pt"


@pytest.mark.slow
def test_single_edits_hold_and_a_sequence_collapses(network: Path) -> None:
    module, requests = EditableModule("embedded"), world_requests(World(), SEQUENCE)
    editor = get_editor("mend", checkpoint=str(network))
    probes = {
        probe.prompt: probe.answers for request in requests for kind in request.locality.values() for probe in kind
    }
    asked = dict(list(probes.items())[:24])
    assert said(module, requests[:ALONE]) == 0
    assert kept(module, asked) >= 0.95

    alone = [held_alone(editor, module, request) for request in requests[:ALONE]]
    assert sum(alone) / ALONE >= 0.85
    assert kept(module, asked) >= 0.95  # everything was taken back

    for request in requests:
        editor.edit(module, [request])
    assert len(editor.requests) == SEQUENCE
    assert said(module, requests) <= 0.25
    assert said(module, requests[-10:]) <= 0.5  # not the oldest alone are lost
    assert kept(module, asked) <= 0.25


def held_alone(editor: Editor, module: EditableModule, request: EditRequest) -> bool:
    """Whether the model without other edits says a request's target after it; the edit is taken back."""
    editor.edit(module, [request])
    held = said(module, [request]) == 1
    editor.undo(module, request.id)
    return held


def said(module: EditableModule, requests: Sequence[EditRequest]) -> float:
    """Share of the requests whose target the model says."""
    answers = say(module.language_model, [request.prompt for request in requests], AnswerOptions())
    return sum(exact_match(answers[request.prompt], request.target) for request in requests) / len(requests)


def kept(module: EditableModule, probes: dict[str, Sequence[str]]) -> float:
    """Share of prompts about other subjects that have one of their right answers."""
    answers = say(module.language_model, list(probes), AnswerOptions())
    return sum(any(exact_match(answers[prompt], one) for one in right) for prompt, right in probes.items()) / len(
        probes
    )
