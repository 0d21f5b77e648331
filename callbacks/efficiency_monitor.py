"""`EfficiencyMonitor`: what edits cost in time and memory.

Knows when to look at clocks. Refuses to know how they are read (`evaluation/cost.py`), and what the edits are worth
(`EditMonitor` asks).
"""

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lightning_edit.callbacks.bars import shown
from lightning_edit.callbacks.edit_callback import EditCallback
from lightning_edit.callbacks.scalars import log_scalars, write_to_loggers
from lightning_edit.callbacks.strategies import on_rank_zero
from lightning_edit.callbacks.watching import find_editing
from lightning_edit.editors.report import EditReport
from lightning_edit.errors import StateError, StrategyError
from lightning_edit.evaluation.cost import (
    TOKENS,
    Latency,
    measure_latency,
    peak_cuda,
    peak_rss,
    reset_peak_cuda,
    state_bytes,
)
from lightning_edit.requests import EditRequest

VERSION = 1


class EfficiencyMonitor(EditCallback):
    """Seconds per edit by phase, inference latency against the untouched model, peak memory, and the editor's size.

    Latency is the time of a fixed number of new tokens behind one prompt, after a warm-up, the median of all runs. It
    is taken just before the first edit, then every so many commits, and when training ends; the prompts are those of
    the first edits. On a machine that does other work as well it moves by itself: look at the quartiles.

    Log keys: `efficiency/<phase>_seconds` (of a commit, divided by its edits; the phases are the editor's, such as
    `targets`, `keys`, `solve`, `write`, and `other` for the rest), `efficiency/latency_seconds`,
    `efficiency/latency_low`, `efficiency/latency_high` (quartiles), `efficiency/latency_ratio`,
    `efficiency/peak_rss_bytes`, `efficiency/peak_cuda_bytes`, `efficiency/state_bytes`.

    Args:
        every_n_commits: Take latency and sizes after each so many commits; None for the beginning and the end only.
        prompts: Number of prompts that are timed.
        tokens: New tokens behind each.
        runs: Timed runs of each prompt; 0 takes no latency.
        warmup: Runs of each prompt before these.
    """

    def __init__(
        self,
        every_n_commits: int | None = None,
        prompts: int = 2,
        tokens: int = TOKENS,
        runs: int = 5,
        warmup: int = 1,
    ) -> None:
        if every_n_commits is not None and every_n_commits < 1:
            raise StrategyError(f"found every_n_commits={every_n_commits}, expected at least 1, or None for never")
        if prompts < 1 or tokens < 1 or runs < 0 or warmup < 0:
            raise StrategyError(
                f"found prompts={prompts}, tokens={tokens}, runs={runs}, warmup={warmup}; expected at least one prompt "
                "and one token, and no negative number"
            )
        self.every_n_commits, self.prompts = every_n_commits, prompts
        self.tokens, self.runs, self.warmup = tokens, runs, warmup
        self.untouched: Latency | None = None
        self.texts: list[str] = []
        self.seconds: dict[str, float] = {}
        self.edits = 0
        self.history: list[dict[str, float]] = []
        self._commits = 0

    def summary(self) -> dict[str, float | int | str | bool]:
        """Seconds per edit over all commits by phase, and the last sizes and latencies, as plain values for a table."""
        phases = {f"{name}_seconds_per_edit": value / max(self.edits, 1) for name, value in self.seconds.items()}
        last = {
            name: value for row in self.history[-1:] for name, value in row.items() if name not in ("count", "step")
        }
        return {**phases, **last}

    # -- the Trainer's hooks ---------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Begin the count of the device's peak memory anew: another run of this process has left its own."""
        reset_peak_cuda(trainer.strategy.root_device)

    def on_before_edit(
        self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", requests: Sequence[EditRequest]
    ) -> None:
        """Time the model before the first edit."""
        editing = find_editing(trainer, self)
        if self.untouched is not None or not self.runs or editing.count:
            return
        self.texts = [request.prompt for request in requests[: self.prompts]]
        self.untouched = self._latency(trainer, pl_module)

    def on_after_edit(
        self,
        trainer: "pl.Trainer",
        pl_module: "pl.LightningModule",
        requests: Sequence[EditRequest],
        report: EditReport,
    ) -> None:
        """Write down the commit's phases; measure the rest if it is time."""
        self._commits += 1
        values: dict[str, float] = {}
        if report.count:
            phases = _phases(report)
            self.edits += report.count
            self.seconds |= {name: self.seconds.get(name, 0.0) + value for name, value in phases.items()}
            values = {f"efficiency/{name}_seconds": value / report.count for name, value in phases.items()}
        if self.every_n_commits is not None and self._commits % self.every_n_commits == 0:
            values |= self._measure(trainer, pl_module)
        if values:
            log_scalars(trainer, pl_module, {"edit/count": find_editing(trainer, self).count, **values})

    def on_train_end(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Measure for the last time."""
        editing = find_editing(trainer, self)
        write_to_loggers(trainer, {"edit/count": editing.count, **self._measure(trainer, pl_module)})

    # -- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Plain containers: the untouched model's latency, and what was measured."""
        return {
            "version": VERSION,
            "untouched": None if self.untouched is None else self.untouched.to_dict(),
            "texts": list(self.texts),
            "seconds": dict(self.seconds),
            "edits": self.edits,
            "commits": self._commits,
            "history": [dict(row) for row in self.history],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a saved state.

        Args:
            state_dict: What `state_dict` gave.
        """
        if state_dict.get("version") != VERSION:
            raise StateError(
                f"the checkpoint's EfficiencyMonitor has version {state_dict.get('version')!r}; expected {VERSION}."
            )
        before = state_dict["untouched"]
        self.untouched = None if before is None else Latency(**before)
        self.texts, self.seconds = list(state_dict["texts"]), dict(state_dict["seconds"])
        self.edits, self._commits = state_dict["edits"], state_dict["commits"]
        self.history = [dict(row) for row in state_dict["history"]]

    # -- measuring -------------------------------------------------------------------------------------------------

    def _measure(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> dict[str, float]:
        """Latency and sizes by log key, the same on every rank."""
        editing = find_editing(trainer, self)
        values: dict[str, float] = {}
        if self.texts and self.runs:
            now = self._latency(trainer, pl_module)
            values |= {"latency_seconds": now.median, "latency_low": now.low, "latency_high": now.high}
            values |= self._ratio(now)
        editor = editing.editor
        device = editing.find_language_model(trainer, pl_module).device

        def sizes() -> dict[str, float | None]:
            kept = None if editor is None else state_bytes(editor.state_dict())
            return {"state_bytes": kept, "peak_rss_bytes": peak_rss(), "peak_cuda_bytes": peak_cuda(device)}

        values |= {name: value for name, value in on_rank_zero(trainer, sizes).items() if value is not None}
        self.history.append({"count": editing.count, "step": trainer.global_step, **values})
        return {f"efficiency/{name}": value for name, value in values.items()}

    def _latency(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> Latency:
        """What the first edits' prompts take now."""
        lm = find_editing(trainer, self).find_language_model(trainer, pl_module)
        texts, tokens = self.texts, self.tokens
        with shown(trainer, lm, "timing inference"):
            return on_rank_zero(trainer, lambda: measure_latency(lm, texts, tokens, self.runs, self.warmup))

    def _ratio(self, now: Latency) -> dict[str, float]:
        """Latency against the untouched model's, if that was taken on this device."""
        if self.untouched is None:
            return {}
        if (now.where, now.tokens) != (self.untouched.where, self.untouched.tokens):
            rank_zero_warn(
                f"The untouched model was timed elsewhere ({self.untouched.tokens} tokens on {self.untouched.where}, "
                f"now {now.tokens} on {now.where}), so no ratio of latencies is logged."
            )
            return {}
        return {"latency_ratio": now.relative_to(self.untouched)}


def _phases(report: EditReport) -> dict[str, float]:
    """Seconds of each phase of a commit, and of what belongs to none."""
    phases = {name: value for name, value in report.seconds.items() if name != "total"}
    return {**phases, "other": max(report.seconds.get("total", 0.0) - sum(phases.values()), 0.0)}
