"""Bars for what callbacks do with the model between two batches, beside the Trainer's own.

Knows the two bars that Lightning draws, and that there may be none. Refuses to know what is done.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import RichProgressBar

from lightning_edit.bars import RichBar, TqdmBar
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.progress import Progress, watched


def trainer_bar(trainer: "pl.Trainer", description: str) -> Progress:
    """A bar that gets on with the Trainer's, and is as silent as that one.

    Where rich draws, the bar is one more line of its display: two displays would draw over each other. Beside tqdm it
    is a line below, and so it is before rich has begun.

    Args:
        trainer: The Trainer.
        description: What is being done.
    """
    theirs: Any = trainer.progress_bar_callback
    if theirs is None or getattr(theirs, "is_disabled", False) or not trainer.is_global_zero:
        return Progress()
    if isinstance(theirs, RichProgressBar) and theirs.progress is not None and theirs.progress.live.is_started:
        return RichBar(description, theirs.progress, theirs.refresh)
    return TqdmBar(description)


@contextmanager
def shown(trainer: "pl.Trainer", lm: LanguageModel, description: str) -> Iterator[None]:
    """Show how far work on the model has come, once it takes more than two seconds.

    Args:
        trainer: The Trainer.
        lm: The language model that works.
        description: What it does.
    """
    with watched(lm, trainer_bar(trainer, description)):
        yield
