"""`GeometryMonitor`: what edits do to hidden representations, seen while training runs.

Knows when to measure and where numbers and pictures go. Refuses to know what is measured on which text
(`geometry_setup.py`) and how (`geometry.probe`): beside any logger the numbers are the same, and one that can show
pictures gets them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor

from lightning_edit.callbacks.bars import shown
from lightning_edit.callbacks.edit_callback import EditCallback, find_callback
from lightning_edit.callbacks.edit_monitor import EditMonitor
from lightning_edit.callbacks.geometry_report import checked, correlations, draw, row, write_correlations
from lightning_edit.callbacks.geometry_setup import GeometrySetup
from lightning_edit.callbacks.measuring import MeasuringPlan, is_last
from lightning_edit.callbacks.pictures import show_pictures
from lightning_edit.callbacks.scalars import keep_metric, write_to_loggers
from lightning_edit.callbacks.strategies import on_rank_zero
from lightning_edit.callbacks.watching import find_edited
from lightning_edit.editors.report import EditReport
from lightning_edit.errors import StateError
from lightning_edit.geometry.activations import Part, Pooling
from lightning_edit.geometry.correlation import Correlation
from lightning_edit.geometry.probe import GeometryProbe
from lightning_edit.geometry.relative_change import Aggregation
from lightning_edit.model.sites import Layer
from lightning_edit.requests import EditRequest

VERSION = 2
COUNTS = (1, 10, 100, 1000)


class GeometryMonitor(EditCallback):
    """Measures the geometry of *Revisiting*, Section 4 and Appendix B, at chosen numbers of edits.

    Before training the unedited model is read: the spectrum of its representations at each place, and a few of them to
    compare with. Each measurement then gives relative change rates R_k and norms of the change, since training began
    and by the last commit alone, beside a null edit (exactly 0) and random updates of the same norms; spectra and the
    stability of principal subspaces; growth with the number of edits; and what the first order predicts. Where
    `EditMonitor` is among the callbacks, rates are correlated with its numbers when training ends.

    Log keys: `geometry/<site>/...`, see `docs/log-keys.md`. Pictures go to the folder `geometry` of the run.

    It remembers, and checkpoints, for each place d x d float64 directions and `sketch` representations, and for each
    edited layer a copy of its first weight.

    Args:
        layers: Layers to measure, by number or path; None takes those that `ContinualEdit` edits, or all of them.
        parts: Places in each layer: the output projection's `output`, its `input`, and the outputs of the projections
            that lead `up` to it.
        at_counts: Measure as soon as so many edits have been made, for each number in the list; `all` among them as for
            `EditMonitor`; 1, 10, 100 and 1000 where None.
        every_n_commits: Measure after each so many commits as well.
        at_end: Measure when training ends.
        texts: Text to read: a file or a list of documents. Batches of the corpus or the training data where None.
        samples: Samples that the spectra are made of, about; four for each feature of the widest place where None. With
            fewer samples than features some directions have no scale.
        sketch: Samples that are compared with the unedited model.
        max_length: Tokens of a text that are read.
        batch_size: Texts in one forward, where texts are given.
        pooling: Which samples a text gives: all its `tokens`, the `last` one, or their `mean`.
        aggregation: How the components of all samples become one rate: `mean_abs` as the public code does, or `rms` as
            in Eq. 10; part of the metrics' names.
        subspaces: Sizes of the principal subspaces whose stability is measured.
        first_order: Texts on which the first order is tested; 0 for none.
        budget_seconds: What one measurement may take, about. Fewer texts are read where it is short, and what is
            dearest is left out, with a warning. None takes all the time it needs.
        plots: Whether to draw.
        seed: Seed of the random control.
    """

    def __init__(
        self,
        layers: list[Layer] | None = None,
        parts: list[Part] | None = None,
        at_counts: list[int | Literal["all"]] | None = None,
        every_n_commits: int | None = None,
        at_end: bool = True,
        texts: str | Path | list[str] | None = None,
        samples: int | None = None,
        sketch: int = 512,
        max_length: int = 128,
        batch_size: int = 16,
        pooling: Pooling = "tokens",
        aggregation: Aggregation = "mean_abs",
        subspaces: list[int] | None = None,
        first_order: int = 8,
        budget_seconds: float | None = 60.0,
        plots: bool = True,
        seed: int = 0,
    ) -> None:
        places: Sequence[Part] = ["output"] if parts is None else parts
        sizes = (samples, sketch, max_length, batch_size)
        self.what = GeometrySetup(
            layers, places, texts, *sizes, pooling, aggregation, subspaces, first_order, budget_seconds, seed
        )
        self.plan = MeasuringPlan(every_n_commits, COUNTS if at_counts is None else at_counts)
        self.at_end, self.plots = at_end, plots
        self.history: list[dict[str, float]] = []
        self.correlations: dict[str, dict[str, Correlation]] = {}
        self._due = False
        self._before: dict[str, Tensor] = {}
        self._probe: GeometryProbe | None = None
        self._loaded: dict[str, Any] | None = None

    @property
    def state_key(self) -> str:
        """One state for each choice of what is measured."""
        what = self.what
        how = {"pooling": what.pooling, "aggregation": what.aggregation}
        return self._generate_state_key(layers=what.layers, parts=list(what.parts), **how)

    # -- what came out ---------------------------------------------------------------------------------------------

    @property
    def probe(self) -> GeometryProbe | None:
        """The reference and all rates, on rank zero from the beginning of training on."""
        return self._probe

    def summary(self) -> dict[str, float | int | str | bool]:
        """The last medians of R_k, means over the places, and what they correlate with, for a table."""
        return row(self.history, self.what.aggregation, self.correlations)

    # -- the Trainer's hooks ---------------------------------------------------------------------------------------

    def on_train_start(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Read the unedited model, unless a checkpoint holds what was read."""
        editing, lm = find_edited(trainer, pl_module, self)
        editing.session.restore(trainer)  # whichever of the two callbacks comes first

        def begin() -> dict[str, float]:
            earlier = self.state_dict()["probe"]  # of a checkpoint, or of an earlier fit
            written = editing.editor.weights(lm) if editing.editor is not None else []
            self._probe = probe = self.what.make_probe(lm, editing.session.layers, written)
            self._loaded = None
            if earlier is not None:
                probe.load_state_dict(earlier)
                return {}
            if editing.count:
                rank_zero_warn(
                    f"The checkpoint holds {editing.count} edits but nothing of the unedited model, so geometry is "
                    "measured against the model as it is now. Keep GeometryMonitor among the callbacks from the "
                    "beginning."
                )
            rank_zero_info("Reading the representations of the model before training.")
            return checked(probe, probe.begin(lm, self.what.read_texts(trainer, pl_module, lm)))

        with shown(trainer, lm, "reading representations"):
            values = on_rank_zero(trainer, begin)
        if values:
            self._log(trainer, pl_module, editing.count, values)

    def on_before_edit(
        self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", requests: Sequence[EditRequest]
    ) -> None:
        """Keep the weights that the commit will change, if it will be measured."""
        editing, lm = find_edited(trainer, pl_module, self)
        last = on_rank_zero(trainer, lambda: is_last(editing, requests))
        self._due = self.plan.next_commit(editing.count, editing.count + len(requests), last)
        if self._due and self._probe is not None:
            self._before = {name: lm.model.get_parameter(name).detach().clone() for name in self._probe.edited}

    def on_after_edit(
        self,
        trainer: "pl.Trainer",
        pl_module: "pl.LightningModule",
        requests: Sequence[EditRequest],
        report: EditReport,
    ) -> None:
        """Measure, if it is time."""
        if self._due:
            self._measure(trainer, pl_module, self._before)
        self._due, self._before = False, {}

    def on_train_end(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Measure for the last time, after the last repair."""
        if self.plan.training_ends() or self.at_end:
            find_edited(trainer, pl_module, self)[0].repair_for(trainer, "end")
            self._measure(trainer, pl_module, {})

    def on_fit_end(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Correlate, draw and write, when every other callback has measured for the last time."""
        folder = Path(trainer.log_dir or trainer.default_root_dir) / "geometry"
        watch = find_callback(trainer, EditMonitor)
        if self._probe is None:  # not the rank that measures
            return
        self.correlations = correlations(self._probe, watch.history) if watch is not None else {}
        if self.correlations:
            write_correlations(folder / "correlations.json", self.correlations)
        if self.plots:
            show_pictures(trainer, {f"geometry/{name}": path for name, path in draw(self._probe, folder).items()})

    # -- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers; rank zero's is the one that counts."""
        probe = self._loaded
        if probe is None and self._probe is not None:
            probe = self._probe.state_dict()
        rows = [dict(row) for row in self.history]
        return {"version": VERSION, "probe": probe, "history": rows, "plan": self.plan.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep a saved state until the model is there.

        Args:
            state_dict: What `state_dict` gave.
        """
        if state_dict.get("version") != VERSION:
            raise StateError(
                f"the checkpoint's GeometryMonitor has version {state_dict.get('version')!r}; expected {VERSION}."
            )
        self._loaded = state_dict["probe"]
        self.history = [dict(row) for row in state_dict["history"]]
        self.plan.load_state_dict(state_dict["plan"])

    # -- measuring -------------------------------------------------------------------------------------------------

    def _measure(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", before: dict[str, Tensor]) -> None:
        """Measure and log; the numbers are the same on every rank."""
        editing, lm = find_edited(trainer, pl_module, self)

        def measure() -> dict[str, float]:
            assert self._probe is not None  # rank zero has it from `on_train_start` on
            return checked(self._probe, self._probe.measure(lm, editing.count, before or None))

        with shown(trainer, lm, "reading representations"):
            values = on_rank_zero(trainer, measure)
        self._log(trainer, pl_module, editing.count, values)

    def _log(
        self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", count: int, values: dict[str, float]
    ) -> None:
        """Everything goes to the loggers; the medians of R_k become metrics of the Trainer, too."""
        self.history.append({"count": count, "step": trainer.global_step, **values})
        write_to_loggers(trainer, {"edit/count": count, **{f"geometry/{name}": v for name, v in values.items()}})
        if trainer.global_step:
            for name, value in values.items():
                if name.endswith(f"/total/R_{self.what.aggregation}_median"):
                    keep_metric(trainer, pl_module, f"geometry/{name}", value)
