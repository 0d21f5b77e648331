"""A training step with the callbacks against one without.

A turn is a short `Trainer.fit` of one module on the same text; only its steps are timed, not its set-up. `idle` has
every callback of an editing run while nothing is due: ContinualEdit, EditMonitor, WandbEditLogger and a tracker whose
moments are frozen. `sampling` has a tracker that still samples one batch in 16 (each turn contains exactly one) at the
edited layer, which is its default beside ContinualEdit, or at all layers. `collecting` has it sample every batch, which
it does until there are 4 n tokens.

Run it alone: `python -m benchmarks training`
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from benchmarks.setting import Sizes, make_module
from benchmarks.timing import Clock, Row, compare
from lightning_edit.callbacks import ContinualEdit, EditMonitor, KeyCovarianceTracker, WandbEditLogger
from lightning_edit.data.stream import EditStream
from lightning_edit.data.world import World, next_year, world_requests
from lightning_edit.module import EditableModule

NEVER = 10**9


class StepTimer(Callback):
    """Times the steps of a fit; first in the list, it begins before and ends after everybody else's step hooks."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.begin, self.seconds = clock, 0.0, 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: object, index: int) -> None:
        """Begin with the first batch."""
        if index == 0:
            self.begin = self.clock()

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """End behind the last batch."""
        self.seconds = self.clock() - self.begin


def measure(sizes: Sizes, clock: Clock) -> list[Row]:
    """Compare steps of bare training with steps beside callbacks.

    Args:
        sizes: Batches and steps.
        clock: By which clock.
    """
    module = make_module(sizes)
    world = World()
    stream = EditStream(
        requests=world_requests(world, 8),
        train=next_year(world, 0, 3 * sizes.batch * sizes.train_steps),
        max_length=sizes.length,
        batch_size=sizes.batch,
    )
    frozen, every = tracker(sizes), list(range(sizes.blocks))
    frozen.frozen = True
    ways: dict[str, list[Callback]] = {
        "bare": [],
        "idle": [frozen, *idle()],
        "tracker sampling 1 layer": [tracker(sizes), *idle()],
        f"tracker sampling {sizes.blocks} layers": [tracker(sizes, every), *idle()],
        "tracker collecting 1 layer": [tracker(sizes, min_tokens=NEVER), *idle()],
    }
    with quiet():
        for callbacks in ways.values():
            turn(module, stream, callbacks, replace(sizes, train_steps=2), clock)  # to warm up
        return compare(
            "training",
            {name: partial(turn, module, stream, callbacks, sizes, clock) for name, callbacks in ways.items()},
            sizes.train_rounds,
            overhead=True,
            aims={name: 1.01 if name == "idle" else 1.03 for name in ways if "collecting" not in name},
        )


def idle() -> list[Callback]:
    """The callbacks of an editing run in which no edit is due."""
    monitor = EditMonitor(at_end=False, budget=2, max_new_tokens=2, thought_tokens=2)
    return [ContinualEdit(every_n_steps=NEVER), monitor, WandbEditLogger()]


def tracker(sizes: Sizes, layers: list[int] | None = None, min_tokens: int = 1) -> KeyCovarianceTracker:
    """A tracker that samples once a turn.

    Args:
        sizes: Steps of a turn.
        layers: Layers to watch; None for the edited ones.
        min_tokens: Until there are so many tokens it samples every batch.
    """
    return KeyCovarianceTracker(layers, every_n_batches=sizes.train_steps, min_tokens=min_tokens)


def turn(
    module: EditableModule, stream: EditStream, callbacks: Sequence[Callback], sizes: Sizes, clock: Clock
) -> float:
    """Seconds of the steps of one short fit.

    Args:
        module: What is trained.
        stream: The text.
        callbacks: Callbacks beside the timer.
        sizes: Steps of the turn.
        clock: By which clock.
    """
    timer = StepTimer(clock)
    trainer = pl.Trainer(
        max_steps=sizes.train_steps,
        max_epochs=-1,
        accelerator="cpu",
        devices=1,
        callbacks=[timer, *callbacks],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, stream)
    assert trainer.global_step == sizes.train_steps, "the text was too short for a turn"
    return timer.seconds


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning from announcing every Trainer."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
