"""`FreezeSites`: train everything but the weights that edits are written into.

Knows which parameters stand still while the rest is trained. Refuses to know why: with them frozen no optimizer step
moves an edit itself, only what lies around it.
"""

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from lightning_edit.callbacks.watching import find_edited
from lightning_edit.errors import StrategyError
from lightning_edit.model.weights import base_layer


class FreezeSites(Callback):
    """Freezes the edited FFN projections for the length of a fit.

    Before the optimizer is built their weights stop asking for gradients; after the fit they are what they were.

    Args:
        layers: The layers; those of `ContinualEdit`'s editor where None.

    Example:
        >>> FreezeSites(layers=[4, 5]).layers
        [4, 5]
    """

    def __init__(self, layers: list[int] | None = None) -> None:
        self.layers = layers
        self._frozen: list[Tensor] = []

    def setup(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", stage: str) -> None:
        """Freeze, before the optimizer asks which parameters are trained."""
        if stage != "fit":
            return
        editing, lm = find_edited(trainer, pl_module, self)
        layers, written = self.layers, list[Tensor]()
        if layers is None:
            if editing.editor is None:
                raise StrategyError("FreezeSites(layers=None) beside ContinualEdit(editor=None): expected the layers.")
            layers = editing.editor.attach(lm)
            written = editing.editor.weights(lm)  # which may be others than the output projections
        weights: list[Tensor] = [base_layer(lm.projection(layer)).get_parameter("weight") for layer in layers]
        weights = list({id(weight): weight for weight in [*weights, *written]}.values())
        self._frozen = [weight for weight in weights if weight.requires_grad]
        for weight in weights:
            weight.requires_grad_(False)

    def teardown(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", stage: str) -> None:
        """Let them be trained again."""
        for weight in self._frozen:
            weight.requires_grad_(True)
        self._frozen = []
