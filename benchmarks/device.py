"""A step of edits of Llama-3-8B's size on a device: targets, keys, solves, and all of it together.

Random weights of that shape, 100 edits a step, 5 layers, AlphaEdit. Targets are found the plain way in float32 (see
`targets`), by ours in float32, and by ours in bfloat16; keys and residuals are read the plain way and on a walk (see
`keys`), both in bfloat16; a layer is solved densely in float32 and by the ledger in float64 (see `solves`). A step is
what ours takes for one edit of a batch: its target, its keys and its share of the solves of all layers.

Run it alone, on a GPU with 64 GB: `python -m benchmarks device --device cuda`; on the CPU `--tiny` shows that it runs.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from benchmarks import keys, targets
from benchmarks.memory import peak
from benchmarks.setting import Sizes, make_language_model
from benchmarks.timing import Clock, Row, stopwatch
from lightning_edit.algebra import NullSpacePrior, SiteLedger
from lightning_edit.data.world import World, world_requests
from lightning_edit.targets import TargetOptions

GOAL = 0.25  # seconds an edit
L2 = 10.0


def measure(sizes: Sizes, clock: Clock) -> list[Row]:
    """Measure a step and its parts.

    Args:
        sizes: The model, the device, and how many requests.
        clock: Seconds on the CPU; a device with a queue of its own is waited for.
    """
    shape, device = sizes.device_shape, torch.device(sizes.device)
    clock = waiting(device) if device.type == "cuda" else clock
    lm, layer = make_language_model(shape, sizes, device), shape.layers[-1]
    requests = world_requests(World(), sizes.device_columns)
    columns, few = [targets.make_column(request) for request in requests], sizes.plain_columns
    options = TargetOptions(steps=sizes.target_steps, batch_size=sizes.device_at_once, stop_loss=0.0)
    targets.check(lm, columns[:few], layer, options)

    find = partial(targets.ours, lm, columns, layer, options)
    slow = stopwatch(partial(targets.plain, lm, columns[:few], layer, options), clock, few)()
    exact = stopwatch(find, clock, len(columns))()
    lm.model.to(torch.bfloat16)
    with highest(device) as most:
        fast = stopwatch(find, clock, len(columns))()
    read = [
        stopwatch(partial(keys.plain, lm, requests[:few], shape), clock, few)(),
        stopwatch(partial(keys.walk, lm, requests, shape), clock, len(requests))(),
    ]
    weights = sum(parameter.nbytes for parameter in lm.model.parameters()) / 1e6
    del lm, find
    dense, ledger = (stopwatch(work, clock)() for work in commits(sizes, device))
    step = fast + read[1] + len(shape.layers) * ledger / len(columns)
    what, batch = shape.name, f"{len(columns)} in batches of {sizes.device_at_once}"
    return [
        _row(f"{what}, targets, {batch}, float32", "one by one, float32", exact, slow, 1 / 10),
        _row(f"{what}, targets, {batch}, bfloat16", "one by one, float32", fast, slow, 1 / 40),
        _row(f"{what}, keys, one walk", "whole forwards", read[1], read[0], 1 / 5),
        _row(f"{what}, a layer's commit and S", "dense, float32", ledger, dense, None),
        _row(f"{what}, a step, per edit", f"{GOAL} s an edit", step, GOAL, 1.0),
        _row(f"{what}, targets, memory beyond weights", "weights, bfloat16", most[0], weights, None, "MB"),
    ]


def waiting(device: torch.device) -> Clock:
    """A clock that waits until a device has done what it was given.

    Args:
        device: The device.
    """

    def clock() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


@contextmanager
def highest(device: torch.device) -> Iterator[list[float]]:
    """By how many megabytes the memory in use grows at most while a block runs; known behind it.

    Args:
        device: Whose memory.
    """
    if device.type != "cuda":
        with peak() as most:
            yield most
        return
    torch.cuda.reset_peak_memory_stats(device)
    before, most = torch.cuda.memory_allocated(device), [0.0]
    yield most
    most[0] = (torch.cuda.max_memory_allocated(device) - before) / 1e6


def commits(sizes: Sizes, device: torch.device) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """A batch of columns onto those that a layer holds: the dense update, and the ledger's edited weight.

    Args:
        sizes: The model, how many columns a layer holds, and how many come.
        device: Where.
    """
    d, n, held, more = sizes.device_shape.width, sizes.device_shape.inner, sizes.device_held, sizes.device_columns
    generator = torch.Generator(device).manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    used = torch.linalg.qr(draw(n, n // 7).double()).Q  # the share of directions that text uses
    prior = NullSpacePrior.from_state({"fingerprint": "random", "parts": {"used": used, "l2": L2}})
    ledger, columns, values = SiteLedger(draw(d, n), prior), draw(n, held + more), draw(d, held + more)
    ledger.append([f"old {i}" for i in range(held)], columns[:, :held], values[:, :held])
    before, new = ledger.snapshot(), columns[:, held:]
    projector = torch.eye(n, device=device) - (used @ used.mT).float()
    history = columns[:, :held] @ columns[:, :held].mT

    def dense() -> Tensor:
        matrix = projector @ (history + new @ new.mT)
        matrix.diagonal().add_(L2)
        update: Tensor = torch.linalg.solve(matrix, projector @ new @ values[:, held:].mT).mT
        return update

    def ours() -> Tensor:
        ledger.restore(before)
        ledger.append([f"new {i}" for i in range(more)], new, values[:, held:])
        return ledger.solution()

    return dense, ours


def _row(way: str, against: str, seconds: float, plain: float, aim: float | None, unit: str = "s") -> Row:
    """A row of one round."""
    ratio = seconds / plain
    return Row("device", way, against, ratio, ratio, ratio, seconds, plain, 1, aim=aim, unit=unit)
