"""Who looks on while edits are made: when they came, and what the model carried then."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_edit.callbacks import ContinualEdit, EditCallback
from lightning_edit.model.weights import read_weight
from lightning_edit.module import EditableModule
from lightning_edit.requests import EditRequest
from tests.callbacks.training import weights


class Witness(EditCallback):
    """Writes down when edits come, and of what the model is made then."""

    def __init__(self) -> None:
        self.commits: list[tuple[int, list[str]]] = []
        self.before: list[dict[str, Tensor]] = []
        self.after: list[dict[str, Tensor]] = []

    def on_before_edit(self, trainer: Any, pl_module: Any, requests: Sequence[EditRequest]) -> None:
        self.commits.append((trainer.global_step, [item.id for item in requests]))
        self.before.append(weights(pl_module))

    def on_after_edit(self, trainer: Any, pl_module: Any, requests: Sequence[EditRequest], report: Any) -> None:
        self.after.append(weights(pl_module))


def deployed(callback: ContinualEdit, module: EditableModule) -> bool:
    """Whether the model carries exactly what the ledgers deployed last."""
    assert callback.editor is not None
    found = {site.layer: read_weight(module.language_model.projection(site.layer)) for site in callback.editor.sites}
    return bool(found) and all(torch.equal(found[site.layer], site.deployed) for site in callback.editor.sites)
