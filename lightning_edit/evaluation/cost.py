"""What edits cost besides quality: time per token of the edited model, memory, and the size of what an editor keeps.

Knows clocks and bytes. Refuses to know when they are read (`EfficiencyMonitor` and the jobs do) and how an edit's own
time is taken (`EditReport.seconds`).
"""

import importlib
import platform
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_edit.decoding import check_room
from lightning_edit.errors import EditError
from lightning_edit.model.generation import generate
from lightning_edit.model.language_model import LanguageModel, as_language_model

TOKENS = 50
"""Tokens that are generated, no more and no fewer, when inference latency is taken; as many as for *Revisiting*."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds that a model needs for a fixed number of new tokens behind one prompt.

    Args:
        median: Median over all runs.
        low: First quartile.
        high: Third quartile.
        tokens: Number of new tokens.
        runs: Number of timed runs, those of all prompts together.
        where: The machine, device and number of threads; latencies of two are not compared.
    """

    median: float
    low: float
    high: float
    tokens: int
    runs: int
    where: str

    def relative_to(self, other: "Latency") -> float:
        """Ratio of the medians; 1 is as fast as the other.

        Args:
            other: The untouched model's latency, of as many tokens and on the same device.
        """
        mine, its = (self.tokens, self.where), (other.tokens, other.where)
        if mine != its:
            raise EditError(f"found latencies of {mine} and {its}, expected as many tokens on the same device.")
        return self.median / other.median

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def measure_latency(
    module: object, prompts: Sequence[str], tokens: int = TOKENS, runs: int = 5, warmup: int = 1
) -> Latency:
    """Time greedy generation of exactly `tokens` tokens, one prompt at a time, with the cache on.

    Whatever an editor does while the model writes (codebooks, side memories, texts before the prompt) is part of it.
    The end-of-text token is not allowed before the last token. On a GPU the clock waits for it.

    Args:
        module: An `EditableModule` or a `LanguageModel`.
        prompts: Texts to continue; each is timed `runs` times, by turns.
        tokens: Number of new tokens.
        runs: Timed runs of each prompt.
        warmup: Runs of each prompt before these, which are not counted.
    """
    if not prompts or tokens < 1 or runs < 1 or warmup < 0:
        raise EditError(
            f"found {len(prompts)} prompts, tokens={tokens}, runs={runs}, warmup={warmup}; expected at least one "
            "prompt, one token and one run, and no negative number."
        )
    lm = as_language_model(module)
    lengths = lm.encode(prompts).attention_mask.sum(-1).tolist()
    check_room(lm, [(prompt, length + tokens) for prompt, length in zip(prompts, lengths, strict=True)])
    seconds: list[float] = []
    turns = [(turn, prompt) for turn in range(warmup + runs) for prompt in prompts]
    for turn, prompt in lm.progress.each(turns):
        taken = _seconds(lm, prompt, tokens)
        if turn >= warmup:
            seconds.append(taken)
    low, median, high = statistics.quantiles(seconds, method="inclusive") if len(seconds) > 1 else seconds * 3
    return Latency(median, low, high, tokens, len(seconds), device_name(lm))


def device_name(lm: LanguageModel) -> str:
    """The machine and the device that a model runs on.

    Args:
        lm: The language model.
    """
    if lm.device.type == "cuda":
        return f"{platform.node()}, {torch.cuda.get_device_name(lm.device)}"
    return f"{platform.node()}, {lm.device.type}, {torch.get_num_threads()} threads"


def state_bytes(state: Any) -> int:
    """Bytes of the tensors, numbers and texts in nested containers: what has to be kept to go on.

    Args:
        state: What an editor's `state_dict` gave.

    Example:
        >>> state_bytes({"keys": torch.zeros(2, 3), "ids": ["ab", "c"], "count": 3})
        35
    """
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, Mapping):
        return sum(state_bytes(value) for value in state.values())
    if isinstance(state, list | tuple | set | frozenset):
        return sum(map(state_bytes, state))
    if isinstance(state, str):
        return len(state.encode("utf-8", "surrogatepass"))
    return len(state) if isinstance(state, bytes) else 0 if state is None else 8


def peak_rss() -> int | None:
    """The most memory this process has had in the machine's main memory so far, in bytes; None where nobody counts."""
    if sys.platform == "win32":
        return None
    resource: Any = importlib.import_module("resource")  # there is none on Windows
    peak: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def peak_cuda(device: torch.device) -> int | None:
    """The most memory that tensors have had on a GPU since the count was last reset, in bytes; None on others.

    Args:
        device: The device.
    """
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def reset_peak_cuda(device: torch.device) -> None:
    """Begin the count of `peak_cuda` anew; nothing happens on other devices.

    Args:
        device: The device.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _seconds(lm: LanguageModel, prompt: str, tokens: int) -> float:
    """Seconds of one run."""
    _wait(lm.device)
    begin = time.perf_counter()
    generate(lm, [prompt], tokens, min_new_tokens=tokens)
    _wait(lm.device)
    return time.perf_counter() - begin


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
