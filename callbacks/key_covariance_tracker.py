"""`KeyCovarianceTracker`: key statistics for free, from forward passes that training makes anyway.

Knows which batches to look at. Refuses to know which editor will use the statistics, and never touches a weight.
"""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from lightning_edit.algebra.moments import KeyCovariance
from lightning_edit.algebra.statistics_file import Identity, save_statistics
from lightning_edit.callbacks.backbone import resolve_language_model
from lightning_edit.callbacks.key_tap import KeyTap, empty_moments, gather_moments
from lightning_edit.errors import StateError, StatisticsError
from lightning_edit.model.language_model import LanguageModel

VERSION = 1


class KeyCovarianceTracker(Callback):
    r"""Collects the second moment of the FFN projections' inputs while the model trains.

    $$M = \frac{1}{T} \sum_t k_t k_t^\top$$

    Keys of sampled batches are added in float64, padding left out. Until there are `min_tokens`, every batch is
    sampled at every layer; from then on one in `every_n_batches`, one layer each in turn, so that many layers cost a
    training step no more than one. The first editor that asks freezes the moments: a prior must not
    move under edits that were solved with it. From then on the tracker does nothing.

    Args:
        layers: Layers to watch; None takes those that `ContinualEdit` edits, or all of them.
        every_n_batches: One batch in so many is sampled once there are enough tokens, at one layer.
        tokens_per_batch: Tokens of a sampled batch that are used, evenly spread.
        min_tokens: Editors wait until there are so many tokens; four times the inner width where None.
        path: Write the statistics to this file when they are frozen, or else when training ends.
        device: Where the sums live, such as `cpu`; where the model is where None.
        backbone: Dotted path of the transformers model, in a module that is no `EditableModule`.
        tokenizer: Its tokenizer, or its name or folder.
        projection: Path of the FFN output projection with `{}` for the layer, where the structure does not show it.
    """

    def __init__(
        self,
        layers: list[int] | None = None,
        every_n_batches: int = 16,
        tokens_per_batch: int = 256,
        min_tokens: int | None = None,
        path: str | Path | None = None,
        device: str | None = None,
        backbone: str | None = None,
        tokenizer: Any = None,
        projection: str | None = None,
    ) -> None:
        if every_n_batches < 1 or tokens_per_batch < 1:
            raise StatisticsError(
                f"found every_n_batches={every_n_batches} and tokens_per_batch={tokens_per_batch}; expected at least 1"
            )
        self.layers = layers
        self.every_n_batches = every_n_batches
        self.tokens_per_batch = tokens_per_batch
        self.min_tokens = min_tokens
        self.path = path
        self.device = device
        self.frozen = False
        self._find = (backbone, tokenizer, projection)
        self._batches = 0
        self._moments: dict[int, KeyCovariance] = {}
        self._loaded: dict[str, Any] | None = None
        self._lm: LanguageModel | None = None
        self._tap: KeyTap | None = None  # open during a sampled batch
        self._world = 1

    @property
    def state_key(self) -> str:
        """One state for each choice of layers."""
        return self._generate_state_key(layers=self.layers)

    @property
    def tokens(self) -> int:
        """Number of keys seen at the layer that saw fewest, on this rank since the last checkpoint."""
        return min((moment.count for moment in self._moments.values()), default=0)

    def is_ready(self) -> bool:
        """Whether there are enough keys for an editor."""
        needed = self.min_tokens or 4 * max((moment.size for moment in self._moments.values()), default=1)
        return self.frozen or self.tokens * self._world >= needed

    def freeze(self) -> dict[int, KeyCovariance]:
        """Stop watching and hand out the moments; every rank must call, and rank zero gets all."""
        if not self.frozen:
            self._close()
            gather_moments(self._moments)
            self.frozen = True
            rank_zero_info(f"Key statistics of {self.tokens:,} training tokens are frozen: an editor uses them now.")
            self._write()
        return self._moments

    # -- the Trainer's hooks ---------------------------------------------------------------------------------------

    def setup(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", stage: str) -> None:
        """Remember how many processes there are."""
        self._world = trainer.world_size

    def on_train_start(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Find the model; continue with what a checkpoint holds."""
        from lightning_edit.callbacks.continual_edit import ContinualEdit
        from lightning_edit.callbacks.edit_callback import find_callback

        editing = find_callback(trainer, ContinualEdit)
        if editing is not None and self._find == (None, None, None):
            self._lm = editing.find_language_model(trainer, pl_module)
        else:
            self._lm = resolve_language_model(trainer, pl_module, *self._find)
        if not self._moments:
            edited = editing.session.layers if editing is not None else None
            layers = self.layers or edited or [site.layer for site in self._lm.sites]
            self._moments = empty_moments(self._lm, list(layers), self.device)
        if self._loaded is not None:
            self._restore(self._loaded, keep=trainer.is_global_zero)
            self._loaded = None

    def on_train_batch_start(
        self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", batch: Any, batch_idx: int
    ) -> None:
        """Listen to this batch, if it is its turn."""
        if self.frozen or self._lm is None:
            return
        sampled, left = divmod(self._batches, self.every_n_batches)
        if not self.is_ready():
            self._listen(self._lm, list(self._moments))
        elif left == 0:
            layers = list(self._moments)
            self._listen(self._lm, [layers[sampled % len(layers)]])
        self._batches += 1

    def on_before_backward(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", loss: Tensor) -> None:
        """Stop listening: activation checkpointing runs the forward pass again during the backward pass."""
        self._close()

    def on_train_batch_end(
        self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop listening."""
        self._close()

    def on_train_end(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Write the statistics if no editor has asked for them."""
        if not self.frozen and self.path is not None:
            gather_moments(self._moments)
            self._write()

    def on_exception(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", exception: BaseException) -> None:
        """Let go of the model."""
        self._close()

    def teardown(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", stage: str) -> None:
        """Let go of the model."""
        self._close()
        self._lm = None

    # -- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers; under several processes every rank must call, and rank zero gets all."""
        if self._loaded is not None:
            return self._loaded
        if not self.frozen:
            gather_moments(self._moments)
        moments = {layer: moment.state_dict() for layer, moment in self._moments.items()}
        return {"version": VERSION, "batches": self._batches, "frozen": self.frozen, "moments": moments}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a saved state when the model is there.

        Args:
            state_dict: What `state_dict` gave.
        """
        if state_dict.get("version") != VERSION:
            raise StateError(
                f"the tracker's state has version {state_dict.get('version')!r}; expected {VERSION}. Collect again."
            )
        self._loaded = state_dict

    def _restore(self, state: dict[str, Any], keep: bool) -> None:
        """Moments go to rank zero only, since they are the sum over ranks."""
        self._batches, self.frozen = state["batches"], state["frozen"]
        if set(state["moments"]) != set(self._moments):
            raise StateError(
                f"the checkpoint tracked layers {sorted(state['moments'])}, this run tracks {sorted(self._moments)}; "
                "expected the same. Pass layers= as before."
            )
        for layer, moment in self._moments.items():
            if keep:
                moment.load_state_dict(state["moments"][layer])

    def _listen(self, lm: LanguageModel, layers: list[int]) -> None:
        """Hear the next forward pass at some layers."""
        self._close()
        self._tap = KeyTap(lm, {layer: self._moments[layer] for layer in layers}, self.tokens_per_batch)
        self._tap.open()

    def _close(self) -> None:
        if self._tap is not None:
            self._tap.close()
            self._tap = None

    def _write(self) -> None:
        """Save what rank zero holds; the others hold nothing after gathering."""
        if self.path is None or self._lm is None or self.tokens == 0:
            return
        sites = {layer: self._lm.site(layer).name for layer in self._moments}
        dtype = str(self._lm.dtype).removeprefix("torch.")
        save_statistics(self.path, self._moments, Identity(self._lm.identity, sites, "training batches", dtype))
