"""How much memory a site takes, counted tensor by tensor and measured.

A ledger of AlphaEdit of Llama-3-8B's size, compact, gets its columns, rests, and makes a step: a batch of columns more,
and the edited weight. Counted are the tensors that it keeps, measured is the memory of the process at the step's peak
beyond what it had before. They stand against what published scripts keep (the running covariance and the projector, n x
n in float32) and what their step has at once (those two, the matrix that is solved, its factor, right-hand sides and
solution).

Run it alone: `python -m benchmarks memory`
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.setting import Sizes
from benchmarks.timing import Clock, Row
from lightning_edit.algebra import NullSpacePrior, SiteLedger

AIM = 200.0  # MB of 2,000 edits at Llama-3-8B's size


def measure(sizes: Sizes, clock: Clock) -> list[Row]:
    """Count and measure one site.

    Args:
        sizes: Its shape, how many columns it holds, and how many a step brings.
        clock: Not looked at.
    """
    (d, n), held, batch = sizes.memory_shape, sizes.memory_held, sizes.memory_batch
    generator = torch.Generator().manual_seed(0)
    used = torch.zeros(n, min(held, n - 1), dtype=torch.float64)
    used.diagonal().fill_(1)  # orthonormal
    prior = NullSpacePrior.from_state({"fingerprint": "unit vectors", "parts": {"used": used, "l2": 10.0}})
    ledger = SiteLedger(torch.zeros(d, n), prior, compact=True)
    keys, values = torch.randn(n, held, generator=generator), torch.randn(d, held, generator=generator)
    names = [str(i) for i in range(held)]
    ledger.set_columns(names[:-batch], keys[:, :-batch].contiguous(), values[:, :-batch].contiguous())
    ledger.rest()
    with peak() as highest:
        ledger.append(names[-batch:], keys[:, -batch:].contiguous(), values[:, -batch:].contiguous())
        solution = ledger.solution()
    working = tensors([getattr(ledger.snapshot(), name) for name in ("keys", "values", "form")])
    ledger.rest()
    resting = tensors([getattr(ledger.snapshot(), name) for name in ("keys", "values", "lower")])
    state = tensors([part for name, part in ledger.state_dict(include_prior=False).items() if name != "base"])
    kept, at_once = 2 * n * n * 4 / 1e6, 4 * n * n * 4 / 1e6 + 2 * n * d * 4 / 1e6
    counted = {
        f"K, V and factor of {held} edits, at rest": (resting, kept, AIM / kept),
        f"K, V and factor of {held} edits, in a checkpoint": (state, kept, AIM / kept),
        f"{held} edits, ready to work": (working, kept, None),
        "masters: base and deployed weight": (2 * ledger.base.nbytes / 1e6, kept, None),
        f"a step of {batch} onto {held - batch}, measured peak": (highest[0], at_once, None),
    }
    assert solution.shape == (d, n)
    return [_row(what, f"d = {d}, n = {n}, dense", *sizes_) for what, sizes_ in counted.items()]


def tensors(value: object) -> float:
    """Megabytes of all tensors in nested containers and objects with fields, each once.

    Args:
        value: What holds them.
    """
    found: dict[int, Tensor] = {}

    def visit(part: object) -> None:
        if isinstance(part, Tensor):
            found[part.data_ptr()] = part
        elif isinstance(part, dict):
            visit(list(part.values()))
        elif isinstance(part, list | tuple):
            for inner in part:
                visit(inner)
        elif hasattr(part, "__dataclass_fields__"):
            visit([getattr(part, name) for name in part.__dataclass_fields__])

    visit(value)
    return sum(tensor.nbytes for tensor in found.values()) / 1e6


@contextmanager
def peak(every: float = 0.002) -> Iterator[list[float]]:
    """By how many megabytes the process grows at most while a block runs; known behind it.

    Args:
        every: Seconds between two looks.
    """
    before, highest, done = _resident(), [0.0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            highest[0] = max(highest[0], _resident() - before)
            time.sleep(every)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield highest
        highest[0] = max(highest[0], _resident() - before, 1e-3)
    finally:
        done.set()
        watcher.join()


def _resident() -> float:
    """Megabytes of the process in memory now."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024 / 1e6


def _row(what: str, against: str, size: float, dense: float, aim: float | None) -> Row:
    """A row of megabytes."""
    ratio = size / dense
    return Row("memory", what, against, ratio, ratio, ratio, size, dense, 1, aim=aim, unit="MB")
