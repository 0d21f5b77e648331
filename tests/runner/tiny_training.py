"""A model, data and a callback that are just enough for a recipe: a tiny random Llama that reads random tokens."""

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY = 50


class TinyModule(L.LightningModule):
    """A random Llama with a learning rate.

    Args:
        lr: Learning rate.
    """

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__()
        self.lr = lr
        config = LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
        )
        self.model = LlamaForCausalLM(config).train()

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss = self.model(input_ids=batch, labels=batch).loss
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.lr)


class TinyData(L.LightningDataModule):
    """Random tokens from a seed.

    Args:
        rows: Number of rows.
    """

    def __init__(self, rows: int = 64) -> None:
        super().__init__()
        self.rows = rows

    def train_dataloader(self) -> DataLoader[Any]:
        tokens = torch.randint(VOCABULARY, (self.rows, 8), generator=torch.Generator().manual_seed(0))
        return DataLoader(list(tokens), batch_size=4)


class Counter(L.Callback):
    """Pretends to edit once a step, and says so in its summary.

    Args:
        drift: A policy, for the row.
        every_n_steps: Steps between two edits.
    """

    def __init__(self, drift: str = "adopt", every_n_steps: int = 1) -> None:
        self.drift = drift
        self.every_n_steps = every_n_steps
        self.edits = 0

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step % self.every_n_steps == 0:
            self.edits += 1
            pl_module.log_dict({"edit/count": float(self.edits), "edit/reliability": 1 - 0.01 * self.edits})

    def summary(self) -> Mapping[str, Any]:
        return {"editor": "counter", "aligned": self.drift == "adopt", "drift": self.drift, "edits": self.edits}


class Watcher(L.Callback):
    """Logs locality, as a control run without edits does."""

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        pl_module.log("edit/locality", 1 - 0.001 * trainer.global_step)
