r"""MEND as an editor: one backward pass, one pass of the trained network, one update a request.

    W <- W + rate * sum_t delta~_t x~_t'

for every token t of every request of a commit. The network was trained on the model without edits, so nothing says that
its updates fit a model that carries others: sequences of edits wear it down.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_edit.editors.commits import Commit, Tensors
from lightning_edit.editors.descent import final_losses
from lightning_edit.editors.examples import make_batches, make_examples
from lightning_edit.editors.gradient import GradientEditor
from lightning_edit.editors.gradient_settings import GradientSettings
from lightning_edit.editors.matrices import copies, distance, matrix, put, take_back
from lightning_edit.editors.mend.factors import read_factors
from lightning_edit.editors.mend.network import MENDNetwork
from lightning_edit.editors.storage import load_state
from lightning_edit.errors import EditError, StateError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.weights import read_weight, write_weight
from lightning_edit.requests import EditRequest


class MEND(GradientEditor):
    """Turns gradients into edits by a network that `lightning-edit run train_mend` has trained for the model.

    Args:
        checkpoint: The file it wrote, `mend.pt`.
        batch_size: Requests in one backward pass; it changes nothing but memory.
        undo_depth: How many of the last commits can be taken back; all if None. For each of them a copy of the updated
            matrices is kept.
    """

    settings_of = "mend"

    def __init__(
        self, checkpoint: str | None = None, batch_size: int | None = None, undo_depth: int | None = 16
    ) -> None:
        if checkpoint is None:
            raise EditError(
                "mend needs a network that was trained for the model; expected the path of one. Train it with "
                "`lightning-edit run train_mend`, and give the mend.pt that it writes as checkpoint=..."
            )
        super().__init__({"batch_size": batch_size}, None, undo_depth)
        state = load_state(checkpoint)
        if state.get("version") != 1 or "network" not in state:
            raise StateError(f"{checkpoint} holds no network of MEND; expected the mend.pt that train_mend wrote.")
        self._trained_on: str = state["identity"]
        self._network = MENDNetwork.from_plain(state["network"])
        self._digest = hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()

    def weights(self, lm: LanguageModel) -> list[Tensor]:
        """The updated matrices.

        Args:
            lm: The language model.
        """
        return list(self._parameters(lm).values())

    def _settle(self, lm: LanguageModel, settings: GradientSettings) -> list[int]:
        if lm.identity != self._trained_on:
            raise StateError(
                f"MEND's network was trained for the model {self._trained_on}, this one is {lm.identity}; expected the "
                "same one. Train a network for this model."
            )
        self._parameters(lm)  # refuses what cannot be written
        return [site.layer for site in lm.sites if site.name in self._network.paths]

    def _parameters(self, lm: LanguageModel) -> dict[str, Tensor]:
        return {path: matrix(lm.model.get_submodule(path), path) for path in self._network.paths}

    def _learn(self, lm: LanguageModel, batch: Sequence[EditRequest]) -> dict[str, float]:
        assert self.settings is not None  # settled
        examples, network = make_examples(lm, batch), self._network.to(lm.device)
        changes: dict[str, Tensor] = {}
        for part in make_batches(lm, examples, self.settings.batch_size):
            factors, _ = read_factors(lm, network.paths, part)
            with torch.no_grad():
                for path, (x, delta) in network(factors).items():
                    change = torch.einsum("btd,btn->dn", delta.double(), x.double())
                    changes[path] = changes[path] + change if path in changes else change
        for path, change in changes.items():
            projection = lm.model.get_submodule(path)
            write_weight(projection, read_weight(projection).double() + change)
        return final_losses(lm, examples, self.settings.batch_size)

    def _capture(self, lm: LanguageModel) -> Tensors:
        return copies(self._parameters(lm))

    def _install(self, lm: LanguageModel, captured: Tensors) -> None:
        put(self._parameters(lm), captured)

    def _unlearn(self, lm: LanguageModel, gone: Sequence[Commit]) -> list[str]:
        return take_back(self._parameters(lm), gone)

    def _norm(self, before: Any, after: Any) -> float:
        return distance(before, after)

    def _extra_state(self) -> dict[str, Any]:
        return {"network": self._digest}

    def _check_extra(self, state: dict[str, Any]) -> None:
        if state["network"] != self._digest:
            raise StateError("the state is of edits by another trained network; expected the same checkpoint file.")
