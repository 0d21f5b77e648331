"""Key statistics from the training data, in one announced pass before the first step.

Knows how to go once through a Trainer's training batches without leaving a trace. Refuses to know what the statistics
are used for. A file is better where there is one: it needs no pass, and can hold far more text.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lightning_edit.algebra.moments import KeyCovariance
from lightning_edit.callbacks.bars import shown
from lightning_edit.callbacks.key_tap import KeyTap, empty_moments, gather_moments
from lightning_edit.errors import StatisticsError
from lightning_edit.model.interception import Intercept
from lightning_edit.model.language_model import LanguageModel


def statistics_of_training_data(
    trainer: "pl.Trainer", pl_module: "pl.LightningModule", lm: LanguageModel, layers: list[int], tokens: int
) -> dict[int, KeyCovariance]:
    """Moments of the keys of the training text, read on the model as it is now.

    Every rank reads its share, and rank zero gets the sum.

    Args:
        trainer: The Trainer.
        pl_module: The module.
        lm: The language model.
        layers: The layers.
        tokens: Stop after this many tokens.
    """
    rank_zero_info(
        f"Reading keys of layers {layers} from up to {tokens:,} tokens of the training data, once, before training. "
        "To save this time, pass statistics=FILE or add a KeyCovarianceTracker."
    )
    moments = empty_moments(lm, layers)
    share = -(-tokens // trainer.world_size)
    with isolate_rng(), lm.borrow(), KeyTap(lm, moments), shown(trainer, lm, "reading keys (tokens)"):
        lm.progress.more(share)
        for batch in text_batches(trainer, pl_module):
            before = moments[layers[0]].count
            _run(lm, batch, max(layers))
            lm.progress.done(moments[layers[0]].count - before)
            if moments[layers[0]].count >= share:
                break
    gather_moments(moments)
    return moments


def text_batches(trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> Iterable[Any]:
    """The batches a DataModule sets aside for this, or the training batches, from a loader of their own if possible.

    Args:
        trainer: The Trainer.
        pl_module: The module.
    """
    datamodule: Any = getattr(trainer, "datamodule", None)
    if hasattr(datamodule, "statistics_dataloader"):
        return datamodule.statistics_dataloader()  # type: ignore[no-any-return]
    for owner in (datamodule, pl_module):
        if owner is not None and is_overridden("train_dataloader", owner):
            return owner.train_dataloader()  # type: ignore[no-any-return]
    return trainer.train_dataloader or []


def _run(lm: LanguageModel, batch: Any, deepest: int) -> None:
    """One forward pass, up to the deepest layer whose keys are read."""
    ids = batch.get("input_ids") if isinstance(batch, Mapping) else None
    if not isinstance(ids, Tensor):
        raise StatisticsError(
            f"found training batches of {type(batch).__name__}, expected mappings with `input_ids`, so that keys can "
            "be read before training. Pass ContinualEdit(statistics=FILE), or add a KeyCovarianceTracker, which reads "
            "keys while your module trains."
        )
    mask = batch.get("attention_mask")
    mask = None if mask is None else mask.to(lm.device)
    with Intercept(lm.model, inputs={lm.site(deepest).name: lambda keys: None}, stop=True):
        lm.model(input_ids=ids.to(lm.device), attention_mask=mask, use_cache=False)
