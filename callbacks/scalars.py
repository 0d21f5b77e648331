"""Numbers on their way to loggers, to the progress bar and to whoever monitors a metric.

Lightning writes what is logged in a training step only every `log_every_n_steps` steps, and then writes the last value
again and again. Edits are rarer than that and matter once: so each commit's numbers go to every logger as they are, and
`self.log` keeps them for ModelCheckpoint, EarlyStopping and the progress bar.
"""

from collections.abc import Mapping

import lightning.pytorch as pl

IN_BAR = ("edit/count", "edit/reliability", "seconds_left")
"""What the progress bar shows."""


def log_scalars(
    trainer: "pl.Trainer",
    pl_module: "pl.LightningModule",
    values: Mapping[str, float],
) -> None:
    """Log numbers that are equal on all ranks.

    Args:
        trainer: The Trainer.
        pl_module: The module, through whose `log` the numbers become metrics of the Trainer.
        values: Numbers by key.
    """
    write_to_loggers(trainer, values)
    for name, value in values.items():
        keep_metric(trainer, pl_module, name, value)


def write_to_loggers(trainer: "pl.Trainer", values: Mapping[str, float]) -> None:
    """Write numbers to every logger now; allowed in every hook.

    Args:
        trainer: The Trainer.
        values: Numbers by key.
    """
    for logger in trainer.loggers:
        logger.log_metrics(dict(values), step=max(trainer.global_step - 1, 0))  # Lightning's own steps count from zero


def log_alone(trainer: "pl.Trainer", pl_module: "pl.LightningModule", values: Mapping[str, float]) -> None:
    """Log numbers when `validate` or `test` starts: they are among those that these return.

    Args:
        trainer: The Trainer.
        pl_module: The module.
        values: Numbers by key, equal on all ranks.
    """
    several = trainer.world_size > 1
    for name, value in values.items():
        pl_module.log(name, float(value), on_step=False, on_epoch=True, sync_dist=several, batch_size=1)


def keep_metric(trainer: "pl.Trainer", pl_module: "pl.LightningModule", name: str, value: float) -> None:
    """Make a number a metric of the Trainer without writing it to the loggers.

    Args:
        trainer: The Trainer.
        pl_module: The module.
        name: Key of the metric.
        value: Its value.
    """
    hook = pl_module._current_fx_name or ""
    if hook in ("on_train_end", "on_fit_end"):
        return  # `self.log` is refused there
    each_step = hook.startswith("on_train_batch")
    many = trainer.world_size > 1 and not each_step
    pl_module.log(
        name,
        float(value),
        on_step=each_step,
        on_epoch=not each_step,
        prog_bar=name in IN_BAR,
        logger=False,
        sync_dist=many,
        batch_size=1,
    )
