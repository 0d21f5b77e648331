"""A training step with the callbacks against one without.

A turn is a short `Trainer.fit` of one module on the same text; only its steps are timed, not its set-up. `idle` has
every callback of an editing run while nothing is due: ContinualEdit, EditMonitor, WandbEditLogger and a tracker whose
moments are frozen. `sampling` has a tracker that still samples one batch in 16 (each turn contains exactly one) at the
edited layer, which is its default beside ContinualEdit, or at all layers. `collecting` has it sample every batch, which
it does until there are 4 n tokens. What idle callbacks cost drowns in the noise of a real step, so they are also
measured on a model so small that a step takes a few milliseconds.

Run it alone: `python -m benchmarks training`
"""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from benchmarks.setting import TINY, Sizes, make_module
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
    every = list(range(sizes.blocks))
    callbacks: dict[str, list[Callback]] = {
        "bare": [],
        "idle": [tracker(sizes, frozen=True), *idle()],
        "tracker sampling 1 layer": [tracker(sizes), *idle()],
        f"tracker sampling {sizes.blocks} layers": [tracker(sizes, every), *idle()],
        "tracker collecting 1 layer": [tracker(sizes, min_tokens=NEVER), *idle()],
    }
    aims = {name: 1.01 if name == "idle" else 1.03 for name in callbacks if "collecting" not in name}
    tiny = replace(TINY, train_steps=6 * sizes.train_steps, train_rounds=2 * sizes.train_rounds)
    alone: dict[str, list[Callback]] = {
        "bare, tiny model": [],
        "idle, tiny model": [tracker(tiny, frozen=True), *idle()],
    }
    with quiet():
        return by_turns(callbacks, sizes, clock, aims) + by_turns(alone, tiny, clock, {})


def by_turns(
    callbacks: Mapping[str, Sequence[Callback]], sizes: Sizes, clock: Clock, aims: Mapping[str, float]
) -> list[Row]:
    """Compare fits of one module on one text.

    Args:
        callbacks: What stands beside it, by name; nothing first.
        sizes: Batches and steps.
        clock: By which clock.
        aims: What ratios should stay under, by name.
    """
    module, world = make_module(sizes), World()
    stream = EditStream(
        requests=world_requests(world, 8),
        train=next_year(world, 0, 3 * sizes.batch * sizes.train_steps),
        max_length=sizes.length,
        batch_size=sizes.batch,
    )
    ways = {name: partial(turn, module, stream, on, sizes, clock) for name, on in callbacks.items()}
    for on in callbacks.values():
        turn(module, stream, on, replace(sizes, train_steps=2), clock)  # to warm up
    return compare("training", ways, sizes.train_rounds, overhead=True, aims=aims)


def idle() -> list[Callback]:
    """The callbacks of an editing run in which no edit is due."""
    monitor = EditMonitor(at_end=False, budget=2, max_new_tokens=2, thought_tokens=2)
    return [ContinualEdit(every_n_steps=NEVER), monitor, WandbEditLogger()]


def tracker(
    sizes: Sizes, layers: list[int] | None = None, min_tokens: int = 1, frozen: bool = False
) -> KeyCovarianceTracker:
    """A tracker that samples once a turn.

    Args:
        sizes: Steps of a turn.
        layers: Layers to watch; None for the edited ones.
        min_tokens: Until there are so many tokens it samples every batch.
        frozen: Whether an editor has its moments already.
    """
    made = KeyCovarianceTracker(layers, every_n_batches=sizes.train_steps, min_tokens=min_tokens)
    made.frozen = frozen
    return made


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
