"""Pictures on their way to loggers.

Every logger can take numbers, and each takes pictures in a way of its own. Knows these ways by the methods that a
logger has, so that none of their packages is needed. A logger with no way is left alone: the files are in the run's
folder.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.loggers import Logger


def show_pictures(trainer: "pl.Trainer", files: Mapping[str, Path]) -> None:
    """Hand PNG files to every logger that can show one.

    W&B's has `log_image`; the experiment behind TensorBoard's has `add_image`, that behind Comet's `log_image`, and
    that behind MLflow's `log_artifact`.

    Args:
        trainer: The Trainer.
        files: Pictures by the key under which they are shown.
    """
    for logger in trainer.loggers:
        for name, path in files.items():
            _show(logger, name, path, trainer.global_step)


def _show(logger: Logger, name: str, path: Path, step: int) -> None:
    """One picture to one logger."""
    if hasattr(logger, "log_image"):
        logger.log_image(key=name, images=[str(path)])
        return
    experiment: Any = getattr(logger, "experiment", None)  # Lightning's own have one
    if hasattr(experiment, "add_image"):
        experiment.add_image(name, _pixels(path), step, dataformats="HWC")
    elif hasattr(experiment, "log_image"):
        experiment.log_image(str(path), name=name, step=step)
    elif hasattr(experiment, "log_artifact"):
        experiment.log_artifact(logger.run_id, str(path), name.rpartition("/")[0] or None)  # type: ignore[attr-defined]


def _pixels(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A PNG file as (height, width, 3) bytes."""
    from matplotlib.image import imread

    pixels = np.asarray(imread(path))[..., :3]  # matplotlib reads PNG as floats in 0..1
    return np.round(255 * pixels).astype(np.uint8)
