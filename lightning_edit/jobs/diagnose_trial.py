"""One trial of `diagnose`: a few requests are edited at once, asked about, measured, and taken back bit for bit.

Knows a clean model, an editor's settings and numbers. Refuses to know which settings are worth a trial.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import harmonic_mean
from typing import Any

import torch
from torch import Tensor

from lightning_edit.algebra import KeyCovariance
from lightning_edit.editors.base import ClosedFormEditor
from lightning_edit.editors.registry import get_editor
from lightning_edit.errors import EditError
from lightning_edit.evaluation import Baseline, Evaluator
from lightning_edit.evaluation.answering import Decoding
from lightning_edit.geometry.activations import ffn_points, read_rows
from lightning_edit.geometry.comparison import Comparison
from lightning_edit.geometry.reference import Batch, float64_home, on_device
from lightning_edit.geometry.relative_change import summarise
from lightning_edit.jobs.geometry_reading import read_spectra
from lightning_edit.jobs.protocols import protocol_name
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.weights import read_weight
from lightning_edit.requests import EditRequest
from lightning_edit.runner.results import RunResult

ASKED = ("reliability", "generalization", "locality")


@dataclass
class Trial:
    """What every trial has in common.

    Args:
        lm: The clean model.
        requests: What is edited.
        name: Name of the editor.
        options: Its options, apart from what is tried.
        moments: Key statistics of all layers that are tried.
        batches: Texts on which representations are read.
        decode: How the model is asked.
    """

    lm: LanguageModel
    requests: Sequence[EditRequest]
    name: str
    options: dict[str, Any]
    moments: dict[int, KeyCovariance] | str
    batches: Sequence[Batch]
    decode: Decoding = "greedy"
    settings: dict[str, dict[str, Any]] = field(default_factory=dict, init=False)
    editors: dict[str, ClosedFormEditor] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._ask = Evaluator(None, paraphrases=2, locality=4, portability=0, decode=self.decode)
        self._baseline: Baseline = self._ask.measure_baseline(self.lm, self.requests)
        self._points = ffn_points(self.lm, [site.layer for site in self.lm.sites])
        with self.lm.borrow():
            found = read_spectra(self.lm, self.batches, self._points, "tokens")
        self._spectra = {name: metric.spectrum().to(float64_home(self.lm.device)) for name, metric in found.items()}
        self._clean = self._read()

    def run(self, label: str, settings: dict[str, Any]) -> RunResult:
        """Edit, measure, undo.

        Args:
            label: What the trial is called.
            settings: What is tried.
        """
        editor = get_editor(self.name, **{**self.options, **settings})
        if not isinstance(editor, ClosedFormEditor):
            raise EditError(f"editor {self.name!r} cannot undo a trial exactly; expected a closed-form editor")
        editor.prepare(self.lm, statistics=self.moments)
        self.settings[label], self.editors[label] = dict(settings), editor
        before = [read_weight(self.lm.projection(layer)).clone() for layer in editor.layers]
        plain = {key: value for key, value in settings.items() if isinstance(value, int | float | str)}
        result = RunResult(label, {"layers": stretch_name(editor.layers), **plain})
        try:
            report = editor.edit(self.lm, self.requests)
        except EditError as error:
            result.row["score"] = 0.0
            result.notes.append(f"the trial failed: {error}")
            return result
        try:
            found = self._ask.evaluate(self.lm, self.requests, self._baseline)
            result.row |= {**found, "protocol": protocol_name(self._ask)}
            rates = self._rates(editor.layers)
            result.row |= rates | {"delta_norm": report.delta_norm, "seconds_per_edit": report.seconds_per_edit}
        finally:
            editor.undo(self.lm, report.ids)
        after = [read_weight(self.lm.projection(layer)) for layer in editor.layers]
        if not all(torch.equal(one, other) for one, other in zip(before, after, strict=True)):
            raise EditError(f"undoing the trial {label!r} did not give the weights back bit for bit; expected it to")
        result.row["score"] = score_of(result)
        return result

    def _rates(self, layers: Sequence[int]) -> dict[str, float]:
        """Median rates at the edited layers' outputs, and at the last layer's."""
        change = Comparison(self._spectra, "mean_abs")
        for after, before in zip(self._read(), self._clean, strict=True):
            change.update(after, before)
        medians = {name: summarise(rates)["median"] for name, rates in change.rates().items()}
        edited = [medians[f"layer{layer}"] for layer in layers]
        return {"R_median": sum(edited) / len(edited), "R_median_last_layer": list(medians.values())[-1]}

    def _read(self) -> list[dict[str, Tensor]]:
        """Representations of the model as it is."""
        with self.lm.borrow():
            return [read_rows(self.lm.model, on_device(self.lm, batch), self._points) for batch in self.batches]


def score_of(result: RunResult) -> float:
    """Harmonic mean of what was asked: none of the three may be bought with another.

    Args:
        result: A trial; one that failed has no shares and scores 0.
    """
    return harmonic_mean([float(result.row[name]) for name in ASKED if name in result.row] or [0.0])


def stretch_name(layers: Sequence[int]) -> str:
    """What neighbouring layers are called: their number, or the first and the last.

    Args:
        layers: Their numbers.
    """
    return str(layers[0]) if len(layers) == 1 else f"{layers[0]}-{layers[-1]}"
