"""Texts whose representations are measured: given ones, or batches that are there for training anyway.

Knows files, loaders and token tensors. Refuses to know what is measured; loaders are read without moving any random
state.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lightning_edit.callbacks.statistics_pass import text_batches
from lightning_edit.data.text import read_texts
from lightning_edit.errors import GeometryError
from lightning_edit.geometry.activations import Pooling
from lightning_edit.geometry.reference import Batch, sample_count
from lightning_edit.model.language_model import LanguageModel


def collect_batches(
    trainer: "pl.Trainer",
    pl_module: "pl.LightningModule",
    lm: LanguageModel,
    texts: str | Path | list[str] | None,
    samples: int,
    max_length: int,
    batch_size: int,
    pooling: Pooling,
) -> list[Batch]:
    """Batches of tokens on the CPU, until they give enough samples.

    Args:
        trainer: The Trainer, whose DataModule or loader is read where no text is given.
        pl_module: The module.
        lm: The language model.
        texts: A file or a list of documents; None reads training batches.
        samples: How many samples are wanted, about.
        max_length: Tokens of a text that are read.
        batch_size: Texts in a batch, where texts are given.
        pooling: Which samples a text gives.
    """
    length = min(max_length, lm.max_length)
    found: list[Batch] = []
    count = 0
    with isolate_rng():
        if texts is not None:
            source = _encoded(lm, read_texts(texts), length, batch_size)
        else:
            source = _cut(lm, text_batches(trainer, pl_module), length)
        for batch in source:
            found.append(batch)
            count += sample_count(batch, pooling)
            if count >= samples:
                break
    if not count:
        raise GeometryError(
            "Found no token in the texts whose representations should be measured; expected some. Pass "
            "GeometryMonitor(texts=...)."
        )
    return found


def _encoded(lm: LanguageModel, texts: list[str], length: int, batch_size: int) -> Iterator[Batch]:
    """Documents as padded batches."""
    for start in range(0, len(texts), batch_size):
        encoded = lm.encode(texts[start : start + batch_size], max_length=length)
        yield _on_cpu(lm, {"input_ids": encoded.input_ids, "attention_mask": encoded.attention_mask})


def _cut(lm: LanguageModel, batches: Iterable[Any], length: int) -> Iterator[Batch]:
    """The beginnings of rows that a model trains on; what is longer than that is left out."""
    for batch in batches:
        ids = batch.get("input_ids") if isinstance(batch, Mapping) else None
        if not isinstance(ids, Tensor):
            raise GeometryError(
                f"Found training batches of {type(batch).__name__}, expected mappings with `input_ids`, whose "
                "representations can be measured. Pass GeometryMonitor(texts=...)."
            )
        mask = batch.get("attention_mask")
        known = torch.ones_like(ids) if mask is None else mask
        said = {"labels": batch["labels"][:, :length]} if lm.layout.separate and "labels" in batch else {}
        yield _on_cpu(lm, {"input_ids": ids[:, :length], "attention_mask": known[:, :length], **said})


def _on_cpu(lm: LanguageModel, batch: Batch) -> Batch:
    """What the model reads of a batch."""
    return {name: value.cpu() for name, value in lm.layout.text_inputs(lm, batch).items()}
