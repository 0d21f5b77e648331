"""Training the embedded model: a small Llama, a stream of documents, an ordinary Lightning loop.

`WorldCorpus` packs documents into token rows, `WorldPretraining` is the LightningModule. Neither knows about edits.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, cast

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lightning_edit.data.world.corpus import Document, active_share, documents
from lightning_edit.data.world.facts import World
from lightning_edit.data.world.tokenizer import train_tokenizer

Focus = Literal["facts", "questions", "choices"]
IGNORED = -100
"""The label of a token that is read but not learned."""


class PackedRows(IterableDataset[dict[str, Tensor]]):
    """Documents, each closed by the end token, cut into rows of equal length.

    Args:
        world: What the documents are about.
        tokenizer: Turns them into tokens.
        rows: Number of rows in all.
        length: Tokens in a row.
        seed: Seed of the documents.
        focus: ``facts`` begins with few entities and prose; the others are about everything and ask more.
    """

    def __init__(
        self, world: World, tokenizer: PreTrainedTokenizerFast, rows: int, length: int, seed: int, focus: Focus
    ) -> None:
        self.world, self.tokenizer, self.rows, self.length, self.seed = world, tokenizer, rows, length, seed
        self.focus = focus

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        made, share, ids, labels = 0, 0.0, list[int](), list[int]()
        while made < self.rows:
            if share != (share := active_share(made / self.rows) if self.focus == "facts" else 1.0):
                stream = documents(self.world, self.seed + made, share, self.focus)
            for tokens, learned in self._encode([next(stream) for _ in range(64)]):
                ids += tokens
                labels += learned
            while len(ids) >= self.length and made < self.rows:
                yield {"input_ids": torch.tensor(ids[: self.length]), "labels": torch.tensor(labels[: self.length])}
                ids, labels, made = ids[self.length :], labels[self.length :], made + 1

    def _encode(self, batch: list[Document]) -> Iterator[tuple[list[int], list[int]]]:
        end = self.tokenizer.eos_token_id
        encoded = self.tokenizer([d.text for d in batch], add_special_tokens=False, return_offsets_mapping=True)
        for doc, ids, spans in zip(batch, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            learned = [token if stop > doc.learn_from else IGNORED for token, (_, stop) in zip(ids, spans, strict=True)]
            yield [*ids, end], [*learned, end]


class WorldCorpus(L.LightningDataModule):
    """The embedded world's training text.

    Args:
        tokens: Tokens to read in all.
        length: Tokens in a row.
        batch_size: Rows in a batch.
        focus: What is learned: `facts` begins with few entities and much prose, `questions` and `choices` ask more.
        seed: Seed of the documents.
        world_seed: Seed of the world.
    """

    def __init__(
        self,
        tokens: int = 16_000_000,
        length: int = 128,
        batch_size: int = 32,
        focus: Focus = "facts",
        seed: int = 0,
        world_seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.length, self.batch_size, self.focus, self.seed = length, batch_size, focus, seed
        self.world = World(world_seed)
        self.tokenizer = train_tokenizer()
        self.rows = tokens // length

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Rows in the order of the curriculum."""
        rows = PackedRows(self.world, self.tokenizer, self.rows, self.length, self.seed, self.focus)
        return DataLoader(rows, batch_size=self.batch_size)


class WorldPretraining(L.LightningModule):
    """A small Llama trained from nothing.

    Args:
        width: Width of the residual stream.
        inner: Inner width of every FFN.
        layers: Number of blocks.
        heads: Number of attention heads.
        vocab_size: Size of the tokenizer.
        lr: Peak learning rate of AdamW.
        warmup: Steps of linear warm-up.
        steps: Steps of the whole schedule; the rate falls to a twentieth of its peak along a cosine.
        weight_decay: Weight decay of all matrices.
        start: Folder of a trained model to go on from, relative to the Trainer's root folder.
    """

    def __init__(
        self,
        width: int = 192,
        inner: int = 2048,
        layers: int = 6,
        heads: int = 6,
        vocab_size: int = 2048,
        lr: float = 3e-3,
        warmup: int = 100,
        steps: int = 3906,
        weight_decay: float = 0.05,
        start: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr, self.weight_decay, self.warmup, self.steps, self.start = lr, weight_decay, warmup, steps, start
        self.automatic_optimization = False  # two optimizers
        torch.manual_seed(0)
        self.model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=vocab_size,
                hidden_size=width,
                intermediate_size=inner,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                num_key_value_heads=heads,
                max_position_embeddings=512,
                tie_word_embeddings=True,
                bos_token_id=None,
                eos_token_id=0,
                pad_token_id=1,
            )
        )

    def setup(self, stage: str) -> None:
        """Take over the weights to go on from."""
        if self.start is not None:
            folder = Path(self.trainer.default_root_dir) / self.start
            self.model.load_state_dict(LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict())

    def training_step(self, batch: dict[str, Tensor]) -> None:
        """One step of both optimizers on one batch of rows."""
        loss = self.model(**batch).loss
        optimizers, schedules = cast(list[Any], self.optimizers()), cast(list[Any], self.lr_schedulers())
        self.manual_backward(loss)
        torch.nn.utils.clip_grad_norm_(self.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        self.log("train_loss", loss.detach(), prog_bar=True)

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[torch.optim.lr_scheduler.LRScheduler]]:
        """Muon for the matrices of the blocks, AdamW for embeddings and norms; warm-up, then a cosine for both."""
        hidden = [p for name, p in self.named_parameters() if p.ndim == 2 and "embed" not in name]
        rest = [p for name, p in self.named_parameters() if p.ndim != 2 or "embed" in name]
        optimizers = [
            torch.optim.Muon(hidden, lr=self.lr, weight_decay=self.weight_decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, lr=self.lr, weight_decay=0.0, betas=(0.9, 0.98)),
        ]
        return optimizers, [self._schedule(optimizer) for optimizer in optimizers]

    def _schedule(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.02, 1.0, self.warmup)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, self.steps - self.warmup), self.lr / 20)
        return torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, cosine], [self.warmup])
