r"""Training MEND's network: an ordinary Lightning loop over edits, each made in its own copy of the model.

    loss = edit_weight * -log p_edited(y | x')  +  locality_weight * KL(p(. | x_loc) || p_edited(. | x_loc))

(arXiv 2110.11309, equation 2), with another phrasing x' of the edit and an unrelated fact. The base model is frozen,
never written, and no part of checkpoints. Knows losses and optimizers; what the network is stands in `network.py`.
"""

from collections.abc import Sequence
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lightning_edit.editors.examples import example_losses, make_batches, make_examples, target_log_probs
from lightning_edit.editors.mend.data import Lesson
from lightning_edit.editors.mend.factors import applied, read_factors
from lightning_edit.editors.mend.network import MENDNetwork
from lightning_edit.editors.storage import save_state
from lightning_edit.model.adapter_hooks import find_linears
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.sites import Layer, Site, ffn_linears
from lightning_edit.model.weights import base_layer, is_transposed
from lightning_edit.module import EditableModule

FILE = "mend.pt"
LAST, LAST_OF_EACH = 3, 2  # blocks of a decoder, and of each of two stacks
NOT_UPDATED = "wi_1"  # of T5 v1.1's FFN the gate alone is updated, as published


class MENDTraining(L.LightningModule):
    """Trains the network; at the end of fitting it is written to `mend.pt` in the Trainer's root folder.

    Where a `ModelCheckpoint` of the Trainer monitors a metric, the network is the one that it found best.

    Args:
        model: Hub name or folder of the causal LM or T5-style encoder-decoder that shall be edited, or the language
            model itself.
        dtype: Precision of its weights, where it is loaded.
        modules: Names of the linear modules that are updated; None takes those of the FFN: all three of a gated one,
            both of others, of T5 `wi` (`wi_0` in v1.1) and `wo`, as published.
        layers: Blocks that they are in, by number or path; None takes the last three, or the last two of encoder and of
            decoder.
        rank: Rank of the network's maps.
        lr: Learning rate of the network.
        rate_lr: Learning rate of the learned rates.
        rate: Size of the rates in the beginning.
        edit_weight: Weight of the edit's loss.
        locality_weight: Weight of the divergence on unrelated facts.
    """

    def __init__(
        self,
        model: str | LanguageModel = "embedded",
        dtype: str = "float32",
        modules: Sequence[str] | None = None,
        layers: list[Layer] | None = None,
        rank: int = 1920,
        lr: float = 1e-6,
        rate_lr: float = 1e-4,
        rate: float = 1e-4,
        edit_weight: float = 0.1,
        locality_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=[] if isinstance(model, str) else ["model"])
        self.lr, self.rate_lr, self.edit_weight, self.locality_weight = lr, rate_lr, edit_weight, locality_weight
        lm = EditableModule(model, dtype).language_model if isinstance(model, str) else model
        self._base = (lm,)  # in a tuple, since no submodule: neither trained nor saved
        chosen = _last_sites(lm) if layers is None else [lm.site(layer) for layer in layers]
        paths = find_linears(lm.model, [site.block for site in chosen], modules or ffn_modules(lm))
        self.network = MENDNetwork({path: size_of(lm, path) for path in paths}, rank, rate)

    @property
    def lm(self) -> LanguageModel:
        """The base model."""
        return self._base[0]

    def on_fit_start(self) -> None:
        """Bring the base model to where the network is."""
        self.lm.model.to(self.device)

    def training_step(self, batch: list[Lesson], batch_idx: int) -> Tensor:
        """Edit, and measure what the edited model says of the edit and of an unrelated fact."""
        edit, kept, _ = self._losses(batch)
        self.log("mend/edit_loss", edit.detach(), prog_bar=True, batch_size=len(batch))
        self.log("mend/divergence", kept.detach(), prog_bar=True, batch_size=len(batch))
        return self.edit_weight * edit + self.locality_weight * kept

    def validation_step(self, batch: list[Lesson], batch_idx: int) -> None:
        """The same on other requests, and how often the whole target is the most likely answer to the edit's prompt."""
        if self.trainer.sanity_checking:
            return  # the network has not seen the scale of a gradient yet
        edit, kept, said = self._losses(batch)
        total = self.edit_weight * edit + self.locality_weight * kept
        values = {
            "mend/val_loss": total,
            "mend/val_edit_loss": edit,
            "mend/val_divergence": kept,
            "mend/val_said": said,
        }
        self.log_dict(values, batch_size=len(batch), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, with a rate of its own for the learned rates."""
        networks = [p for name, p in self.network.named_parameters() if name != "rates"]
        groups = [{"params": networks, "lr": self.lr}, {"params": [self.network.rates], "lr": self.rate_lr}]
        return torch.optim.Adam(groups)

    def on_fit_end(self) -> None:
        """Write the network for the editor: the best one, where a checkpoint of it was kept."""
        for keeper in self.trainer.checkpoint_callbacks:
            if isinstance(keeper, ModelCheckpoint) and keeper.monitor and keeper.best_model_path:
                best = torch.load(keeper.best_model_path, map_location=self.device, weights_only=False)
                self.load_state_dict(best["state_dict"])
        if self.global_rank == 0:
            self.export(Path(self.trainer.default_root_dir) / FILE)

    def export(self, path: str | Path) -> None:
        """Write the network as a file that the editor `mend` reads.

        Args:
            path: The file.
        """
        save_state(path, {"version": 1, "identity": self.lm.identity, "network": self.network.to_plain()})

    def _losses(self, lessons: list[Lesson]) -> tuple[Tensor, Tensor, Tensor]:
        """Mean loss of the edits, mean divergence on unrelated facts, share of edits that are said."""
        lm, asked = self.lm, torch.is_grad_enabled()
        edits, outer, kept = (
            make_batches(lm, make_examples(lm, part), len(lessons))[0]
            for part in ([x.edit for x in lessons], [x.outer for x in lessons], [x.kept for x in lessons])
        )
        with lm.borrow(), torch.set_grad_enabled(asked):
            factors, _ = read_factors(lm, self.network.paths, edits)
            update = self.network(factors)
            with torch.no_grad():
                before = target_log_probs(lm, kept)
            with applied(lm, update):
                losses = example_losses(lm, outer)
                after = target_log_probs(lm, kept)
                with torch.no_grad():
                    right = target_log_probs(lm, edits).argmax(-1) == edits.labels
            divergence = (before.exp() * (before - after)).sum(-1)
            wrong = torch.zeros(len(lessons), device=right.device).index_add(0, edits.rows, (~right).float())
            return losses.mean(), divergence.mean(), (wrong == 0).float().mean()


def _last_sites(lm: LanguageModel) -> list[Site]:
    """The last sites of each stack."""
    stacks = [[site for site in lm.sites if site.stack == name] for name in ("", "encoder", "decoder")]
    count = LAST_OF_EACH if lm.layout.separate else LAST
    return [site for stack in stacks for site in stack[-count:]]


def ffn_modules(lm: LanguageModel) -> list[str]:
    """Names by which `find_linears` finds the linear modules of the model's FFNs and nothing else.

    Args:
        lm: The language model.

    Returns:
        The last part of each one's path, or as many parts as tell it from the block's other modules: `mlp.c_proj` in
        GPT-2, whose attention has a `c_proj` too.
    """
    site = lm.sites[-1]
    inside = [path for path in ffn_linears(lm.model, site) if not path.endswith(f".{NOT_UPDATED}")]
    others = [f"{site.block}.{name}" for name, _ in lm.model.get_submodule(site.block).named_modules()]
    return [_short(path, [other for other in others if other not in inside]) for path in inside]


def _short(path: str, others: Sequence[str]) -> str:
    """The shortest end of a path that no other path has."""
    parts = path.split(".")
    ends = (".".join(parts[-count:]) for count in range(1, len(parts) + 1))
    return next(end for end in ends if not any(other.endswith(f".{end}") for other in others))


def size_of(lm: LanguageModel, path: str) -> tuple[int, int]:
    """Inputs and outputs of a linear module.

    Args:
        lm: The language model.
        path: The module.
    """
    module = base_layer(lm.model.get_submodule(path))
    first, second = module.get_parameter("weight").shape
    return (first, second) if is_transposed(module) else (second, first)
