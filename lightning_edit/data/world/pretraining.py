"""Training the embedded model: a small Llama, a stream of documents, an ordinary Lightning loop.

`WorldCorpus` packs documents into token rows, `WorldPretraining` is the LightningModule. Neither knows about edits.
"""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lightning_edit.data.world.corpus import Document, Focus, active_share, document
from lightning_edit.data.world.documents import Writer
from lightning_edit.data.world.facts import World
from lightning_edit.data.world.mentions import NOBODY, Mentions
from lightning_edit.data.world.recall import RecallHead
from lightning_edit.data.world.tokenizer import train_tokenizer

IGNORED = -100
"""The label of a token that is read but not learned."""
COLUMNS = ("input_ids", "labels", "entities", "learned")
WAITING = 64
"""Documents to choose from when a row is filled."""


class PackedRows(IterableDataset[dict[str, Tensor]]):
    """Documents, each closed by the end token, laid into rows of equal length.

    No document is cut, because an answer without the facts in front of it teaches guessing: a row takes the waiting
    documents that still fit, oldest first, and is padded. It holds token ids, labels (the ids where something is to be
    learned), for every token that ends the name of an entity the entity's number, and for every token the number of
    learned tokens in its document.

    Args:
        world: What the documents are about.
        tokenizer: Turns them into tokens.
        rows: Number of rows in all.
        length: Tokens in a row.
        seed: Seed of the documents.
        focus: `facts` begins with few entities and much prose; the others are about everybody and ask more.
    """

    def __init__(
        self,
        world: World,
        tokenizer: PreTrainedTokenizerFast,
        rows: int,
        length: int,
        seed: int,
        focus: Focus = "facts",
    ) -> None:
        self.world, self.tokenizer, self.rows, self.length, self.seed = world, tokenizer, rows, length, seed
        self.focus = focus
        self.mentions = Mentions(world)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        writer = Writer(self.world, random.Random(f"pretraining-{self.world.seed}-{self.seed}"))
        waiting = list[Tensor]()
        for made in range(self.rows):
            progress = made / self.rows
            writer.share = active_share(progress) if self.focus == "facts" else 1.0
            if len(waiting) < WAITING // 2:
                waiting += self._encode([document(writer, progress, self.focus) for _ in range(WAITING)])
            row, rest, left = list[Tensor](), list[Tensor](), self.length
            for tokens in waiting:
                fits = tokens.shape[1] <= left
                (row if fits else rest).append(tokens)
                left -= tokens.shape[1] * fits
            waiting = rest
            padding = torch.tensor([[self.tokenizer.pad_token_id], [IGNORED], [NOBODY], [1]]).expand(4, left)
            yield dict(zip(COLUMNS, torch.cat([*row, padding], dim=1), strict=True))

    def _encode(self, batch: list[Document]) -> Iterator[Tensor]:
        """The columns of each document (4, tokens); what is longer than a row is left out."""
        end = self.tokenizer.eos_token_id
        encoded = self.tokenizer([d.text for d in batch], add_special_tokens=False, return_offsets_mapping=True)
        for doc, ids, spans in zip(batch, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            learned = [token if stop > doc.learn_from else IGNORED for token, (_, stop) in zip(ids, spans, strict=True)]
            named = self.mentions.at_tokens(doc.text, spans)
            if len(ids) < self.length:
                count = 1 + sum(label != IGNORED for label in learned)
                yield torch.tensor([[*ids, end], [*learned, end], [*named, NOBODY], [count] * (len(ids) + 1)])


class WorldCorpus(L.LightningDataModule):
    """The embedded world's training text.

    Args:
        tokens: Tokens to read in all, padding included.
        length: Tokens in a row.
        batch_size: Rows in a batch.
        focus: What is learned: `facts` begins with few entities and much prose, `questions` and `choices` ask more.
        seed: Seed of the documents.
        world_seed: Seed of the world.
    """

    def __init__(
        self,
        tokens: int = 9_420_800,
        length: int = 256,
        batch_size: int = 16,
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

    The loss is that of the next token plus, weighted, that of reading an entity's attributes half-way up, at the last
    token of its name (`RecallHead`, which is dropped after training).

    Args:
        width: Width of the residual stream.
        inner: Inner width of every FFN.
        layers: Number of blocks.
        heads: Number of attention heads.
        vocab_size: Size of the tokenizer.
        recall_block: The block after which attributes must be readable, counted from 0; the last of the lower half
            where None.
        recall_weight: Weight of that loss.
        lr: Peak learning rate of AdamW.
        warmup: Steps of linear warm-up.
        steps: Steps of the whole schedule; the rate falls to a twentieth of its peak along a cosine.
        weight_decay: Weight decay of all matrices.
        world_seed: Seed of the world whose attributes are read.
        start: Folder of a trained model to go on from, relative to the Trainer's root folder.
        balance: A token weighs n ** -balance, where n tokens of its document are learned: 0 weighs all tokens alike, 1
            all documents, so that a short answer counts as much as a long one.
    """

    def __init__(
        self,
        width: int = 256,
        inner: int = 2048,
        layers: int = 6,
        heads: int = 8,
        vocab_size: int = 2048,
        recall_block: int | None = None,
        recall_weight: float = 0.5,
        lr: float = 3e-3,
        warmup: int = 100,
        steps: int = 2300,
        weight_decay: float = 0.1,
        world_seed: int = 0,
        start: str | None = None,
        balance: float = 0.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.start, self.balance = start, balance
        self.lr, self.weight_decay, self.warmup, self.steps = lr, weight_decay, warmup, steps
        self.recall_block = layers // 2 - 1 if recall_block is None else recall_block
        self.recall_weight = recall_weight
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
        self.recall = RecallHead(World(world_seed), width)

    def setup(self, stage: str) -> None:
        """Take over the weights to go on from; the classifiers that read attributes start anew."""
        if self.start is not None:
            folder = Path(self.trainer.default_root_dir) / self.start
            self.model.load_state_dict(LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict())

    def training_step(self, batch: dict[str, Tensor]) -> None:
        """One step of both optimizers on one batch of rows."""
        output = self.model(batch["input_ids"], output_hidden_states=True)
        told = self._language_loss(output.logits, batch)
        recall = self.recall(output.hidden_states[self.recall_block + 1], batch["entities"])
        loss = told + self.recall_weight * recall
        optimizers, schedules = cast(list[Any], self.optimizers()), cast(list[Any], self.lr_schedulers())
        self.manual_backward(loss)
        torch.nn.utils.clip_grad_norm_(self.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        self.log("train_loss", told.detach(), prog_bar=True)
        self.log("recall_loss", recall.detach(), prog_bar=True)

    def _language_loss(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Weighted mean of -log p over the learned tokens; each is predicted at the place before it."""
        labels, learned = batch["labels"][:, 1:], batch["learned"][:, 1:]
        losses = torch.nn.functional.cross_entropy(
            logits[:, :-1].float().transpose(1, 2), labels, ignore_index=IGNORED, reduction="none"
        )
        weights = (labels != IGNORED) * learned.float() ** -self.balance
        return (losses * weights).sum() / weights.sum()

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[torch.optim.lr_scheduler.LRScheduler]]:
        """Muon for the matrices of the blocks, AdamW for everything else; warm-up, then a cosine for both."""
        blocks = [p for p in self.model.model.layers.parameters() if p.ndim == 2]
        rest = [p for p in self.parameters() if not any(p is block for block in blocks)]
        optimizers = [
            torch.optim.Muon(blocks, lr=self.lr, weight_decay=self.weight_decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, lr=self.lr, weight_decay=0.0, betas=(0.9, 0.98)),
        ]
        return optimizers, [self._schedule(optimizer) for optimizer in optimizers]

    def _schedule(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.02, 1.0, self.warmup)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, self.steps - self.warmup), self.lr / 20)
        return torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, cosine], [self.warmup])
