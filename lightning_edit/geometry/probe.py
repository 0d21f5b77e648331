"""One measurement of everything: what edits have done to representations since a reference was taken.

Knows a language model, its reference and the weights just before the last commit. Refuses to know the Trainer and who
edits. Every measurement carries its controls: the same model read twice, where every rate must be exactly 0, and random
updates of the edits' norms.

| comparison | after | before | samples |
| --- | --- | --- | --- |
| `total` | the model now | the reference, training's part included | the sketch |
| `edited` | the model now | the same with the reference's edited matrices | all |
| `random` | that, with noise of the edits' norm added | the same with the reference's edited matrices | all |
| `commit` | the model now | the same with the edited matrices from before the last commit | all |
| `commit_random` | that, with noise of the commit's norm added | as `commit` | all |
| `null` | the model now, read again | the model now | all |
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from lightning_edit.errors import StateError
from lightning_edit.geometry.accumulation import coherence, linear_law
from lightning_edit.geometry.activations import Point, Pooling, State, random_state, read_states
from lightning_edit.geometry.change_metrics import FirstOrderError
from lightning_edit.geometry.comparison import BRIEF, RATES, Comparison
from lightning_edit.geometry.first_order import network_change
from lightning_edit.geometry.reference import (
    Batch,
    Readings,
    Reference,
    float64_home,
    make_reference,
    on_device,
    sample_count,
)
from lightning_edit.geometry.relative_change import Aggregation
from lightning_edit.geometry.spectrum import Spectrum
from lightning_edit.geometry.stability import SIZES, stability
from lightning_edit.model.language_model import LanguageModel

PAIRS = MappingProxyType(
    {
        "null": ("again", "now"),
        "edited": ("now", "start"),
        "random": ("random", "start"),
        "commit": ("now", "before"),
        "commit_random": ("before_random", "before"),
    }
)
"""Which states of the model each comparison sets side by side, after and before."""

CONTROLS = ("null", "random", "commit_random")


@dataclass(slots=True)
class GeometryProbe:
    """The reference, and what has been measured against it.

    Args:
        points: Places that are measured.
        edited: Names of the parameters that edits change.
        later: Further places where the first order is compared with what happens.
        pooling: Which samples a text gives.
        aggregation: How samples become one number.
        sizes: Sizes of the subspaces whose stability is measured.
        sketch: Samples that are compared with the reference.
        first_order: Texts on which the first order is tested; 0 for none.
        seconds: What one measurement may take, about; None for as long as it takes.
        seed: Seed of the random control.
    """

    points: Sequence[Point]
    edited: Sequence[str]
    later: Sequence[Point] = ()
    pooling: Pooling = "tokens"
    aggregation: Aggregation = "mean_abs"
    sizes: Sequence[int] = SIZES
    sketch: int = 512
    first_order: int = 8
    seconds: float | None = None
    seed: int = 0
    reference: Reference | None = field(default=None, init=False)
    history: list[dict[str, Any]] = field(default_factory=list, init=False)
    skipped: list[str] = field(default_factory=list, init=False)  # parts for which the last measurement had no time
    _previous: dict[str, Tensor] = field(default_factory=dict, init=False)  # the sketch as it was measured last
    _pushed: dict[str, Tensor] = field(default_factory=dict, init=False)  # sum over the steps of their mean |c_k|

    def begin(self, lm: LanguageModel, batches: Sequence[Batch]) -> dict[str, float]:
        """Take the reference, and measure the same model against it: every rate must be exactly 0.

        Args:
            lm: The language model before any edit.
            batches: `input_ids` and `attention_mask` of the texts.
        """
        made = make_reference(lm, batches, self.points, self.edited, self.sketch, self.pooling, self.seconds)
        self.reference, self._previous = made, made.sketch
        self._pushed = {name: torch.zeros(known.rank, dtype=torch.float64) for name, known in made.spectra.items()}
        return self.measure(lm, 0)

    def measure(self, lm: LanguageModel, count: int, before: State | None = None) -> dict[str, float]:
        """Measure the model now; numbers by `<place>/<what>`, only finite ones.

        Args:
            lm: The language model.
            count: Number of edits it carries.
            before: The edited parameters from before the last commit.
        """
        begin, self.skipped = time.perf_counter(), []
        reference = self._reference(lm)
        with lm.borrow():
            now = {name: lm.model.get_parameter(name).detach().clone() for name in self.edited}
            states = self._states(reference, now, before)
            readings, found = self._read(lm, reference, states)
            spectra = self._spectra(reference, readings, begin)
            values = self._first_order(lm, reference, {**states, "now": now}, begin)
        for name, known in spectra.items():
            summary = {**known.summary(lm.dtype), **stability(reference.spectra[name], known, self.sizes)}
            values |= {f"{name}/{what}": value for what, value in summary.items()}
        for label, comparison in found.items():
            values |= comparison.values(label, BRIEF if label in CONTROLS else RATES)
        values |= self._growth(reference, readings.sketch(), found["total"], count)
        self._previous = readings.sketch()
        self.history.append(
            {
                "count": count,
                "rates": {label: comparison.rates() for label, comparison in found.items() if label != "null"},
                "sigma": {name: known.sigma.cpu() for name, known in spectra.items()},
            }
        )
        return {name: value for name, value in values.items() if math.isfinite(value)}

    # -- the parts of a measurement --------------------------------------------------------------------------------

    def _states(self, reference: Reference, now: State, before: State | None) -> dict[str, State]:
        """The states of the model that are read, by name."""
        states: dict[str, State] = {"now": {}, "again": {}}
        if self.edited:
            start = {name: value.to(now[name].device) for name, value in reference.weights.items()}
            states |= {"start": start, "random": random_state(start, now, self.seed)}
        if self.edited and before is not None:
            states |= {"before": before, "before_random": random_state(before, now, self.seed + 1)}
        return states

    def _read(
        self, lm: LanguageModel, reference: Reference, states: Mapping[str, State]
    ) -> tuple[Readings, dict[str, Comparison]]:
        """One pass over the texts in every state."""
        readings = Readings({})
        found = {
            label: Comparison(reference.spectra, self.aggregation)
            for label, pair in PAIRS.items()
            if all(state in states for state in pair)
        }
        for batch, pick in lm.progress.each(list(zip(reference.batches, reference.picks, strict=True))):
            rows = read_states(lm.model, on_device(lm, batch), self.points, states, self.pooling)
            readings.add(rows["now"], pick, sample_count(batch, self.pooling))
            for label, comparison in found.items():
                after, earlier = PAIRS[label]
                comparison.update(rows[after], rows[earlier])
        total = Comparison(reference.spectra, self.aggregation)
        total.update(readings.sketch(), reference.sketch)
        return readings, {"total": total, **found}

    def _spectra(self, reference: Reference, readings: Readings, begin: float) -> dict[str, Spectrum]:
        """Spectra now, if there is time to decompose them."""
        if self._late(begin, reference.seconds, "spectra"):
            return {}
        return {name: metric.spectrum() for name, metric in readings.spectra.items()}

    def _growth(
        self, reference: Reference, rows: Mapping[str, Tensor], total: Comparison, count: int
    ) -> dict[str, float]:
        """Accumulation against the linear law; the identity of Eq. 15 holds between measurements, whoever pushed."""
        step = Comparison(reference.spectra, self.aggregation)
        step.update(rows, self._previous)
        values: dict[str, float] = {}
        now, reached = total.rates(), total.mean_abs()
        for name, push in step.mean_abs().items():
            self._pushed[name] = self._pushed[name] + push
            values[f"{name}/coherence"] = float(coherence(reached[name], self._pushed[name]).nanquantile(0.5))
            earlier = {row["count"]: row["rates"]["total"][name] for row in self.history if 0 < row["count"] < count}
            if earlier:
                steps = sorted(earlier)
                law = linear_law([*steps, count], torch.stack([*(earlier[step] for step in steps), now[name]]))
                values |= {f"{name}/{what}": value for what, value in law.summary().items()}
        return values

    def _first_order(
        self, lm: LanguageModel, reference: Reference, states: Mapping[str, State], begin: float
    ) -> dict[str, float]:
        """The first order of the last commit, and of all edits together, beside what they do."""
        values: dict[str, float] = {}
        if not self.first_order or not self.edited:
            return values
        points = [*self.points, *self.later]
        batch = {name: value[: self.first_order] for name, value in reference.batches[0].items()}
        cost = 0.0
        for label, state in (("commit", "before"), ("edited", "start")):
            unchanged = all(torch.equal(value, states["now"][name]) for name, value in states.get(state, {}).items())
            if unchanged or self._late(begin, cost, f"first order of {label}"):
                continue
            since = time.perf_counter()
            changes = network_change(lm.model, on_device(lm, batch), states[state], states["now"], points, self.pooling)
            for name, sides in changes.items():
                metric = FirstOrderError(sync_on_compute=False).to(sides[0].device)
                metric.update(*sides)
                values |= {f"{name}/{label}/first_order_{what}": float(v) for what, v in metric.compute().items()}
            cost = time.perf_counter() - since
        return values

    def _late(self, begin: float, cost: float, what: str) -> bool:
        """Whether there is no time left for a part of the measurement."""
        late = self.seconds is not None and time.perf_counter() - begin + cost > self.seconds
        if late:
            self.skipped.append(what)
        return late

    # -- state -----------------------------------------------------------------------------------------------------

    def _reference(self, lm: LanguageModel) -> Reference:
        """The reference, with its spectra where the sums are made."""
        if self.reference is None:
            raise StateError("the probe has no reference; expected `begin` before `measure`.")
        home = float64_home(lm.device)
        self.reference.spectra = {name: known.to(home) for name, known in self.reference.spectra.items()}
        return self.reference

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers: the reference, the last sketch, and the rates of every measurement."""
        return {
            "reference": None if self.reference is None else self.reference.state_dict(),
            "history": [dict(row) for row in self.history],
            "previous": dict(self._previous),
            "pushed": dict(self._pushed),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state.

        Args:
            state: What `state_dict` gave.
        """
        reference = None if state["reference"] is None else Reference.from_state(state["reference"])
        places = {point.name for point in self.points}
        if reference is not None and (set(reference.spectra) != places or set(reference.weights) != set(self.edited)):
            raise StateError(
                f"the saved measurements are of {sorted(reference.spectra)} and the parameters "
                f"{sorted(reference.weights)}; this run measures {sorted(places)} and edits {sorted(self.edited)}. "
                "Expected the same: pass layers= and parts= as before."
            )
        self.reference, self.history = reference, [dict(row) for row in state["history"]]
        self._previous, self._pushed = dict(state["previous"]), dict(state["pushed"])
