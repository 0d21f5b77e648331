"""What is remembered of the model before its edits: the texts, the spectra, a few representations, a few weights.

Knows a language model and batches of tokens. Texts are read once here, and the time that takes decides how many of them
are kept: what a later measurement costs is fixed by it.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_edit.errors import GeometryError
from lightning_edit.geometry.activations import Point, Pooling, read_rows
from lightning_edit.geometry.metrics import RepresentationSpectrum
from lightning_edit.geometry.spectrum import Spectrum
from lightning_edit.model.language_model import LanguageModel

Batch = dict[str, Tensor]
READINGS = 12
"""Passes over the texts that a measurement may take, controls and first order included, with some room."""


@dataclass(slots=True)
class Reference:
    """The unedited model, as far as it has to be remembered.

    Args:
        batches: `input_ids` and `attention_mask` of the texts (b, t), on the CPU.
        spectra: Spectrum of each place.
        sketch: Representations of evenly spread samples (m, d) of each place, in the model's precision, on the CPU.
        picks: Which samples of each batch these are.
        weights: The edited parameters by name, in their own precision, on the CPU.
        seconds: What decomposing all spectra took.
    """

    batches: list[Batch]
    spectra: dict[str, Spectrum]
    sketch: dict[str, Tensor]
    picks: list[Tensor]
    weights: dict[str, Tensor]
    seconds: float = 0.0

    @property
    def samples(self) -> int:
        """Number of samples behind each spectrum."""
        return next(iter(self.spectra.values())).count

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers."""
        return {
            "batches": [dict(batch) for batch in self.batches],
            "spectra": {name: known.state_dict() for name, known in self.spectra.items()},
            "sketch": dict(self.sketch),
            "picks": list(self.picks),
            "weights": dict(self.weights),
            "seconds": self.seconds,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Reference":
        """Read back `state_dict`, bit for bit.

        Args:
            state: What it gave.
        """
        spectra = {name: Spectrum.from_state(known) for name, known in state["spectra"].items()}
        return cls(**{**state, "spectra": spectra})


@dataclass(slots=True)
class Readings:
    """One pass: a spectrum of each place, and the rows of the sketch.

    Args:
        spectra: Streams of all samples, by place.
        rows: Rows of the sketch, by place, one part for each batch.
    """

    spectra: dict[str, RepresentationSpectrum]
    rows: dict[str, list[Tensor]] = field(default_factory=dict)

    def add(self, found: Mapping[str, Tensor], pick: Tensor, count: int) -> None:
        """Add the samples of a batch.

        Args:
            found: Rows (m, d) by place.
            pick: Which of the batch's samples belong to the sketch.
            count: How many samples the batch has.
        """
        for name, rows in found.items():
            own = pick if len(rows) == count else pick * len(rows) // count  # a decoder may read more than an encoder
            if name not in self.spectra:
                self.spectra[name] = RepresentationSpectrum(rows.shape[-1], rows.dtype).to(float64_home(rows.device))
            self.spectra[name].update(rows)
            self.rows.setdefault(name, []).append(rows[own.to(rows.device)].cpu())

    def sketch(self) -> dict[str, Tensor]:
        """The rows of the sketch by place."""
        return {name: torch.cat(parts) for name, parts in self.rows.items()}


def make_reference(
    lm: LanguageModel,
    batches: Sequence[Batch],
    points: Sequence[Point],
    edited: Sequence[str],
    sketch: int = 512,
    pooling: Pooling = "tokens",
    seconds: float | None = None,
) -> Reference:
    """Read the unedited model.

    Args:
        lm: The language model.
        batches: The texts.
        points: Places that are measured.
        edited: Names of the parameters that edits will change.
        sketch: Samples that are kept; all later measurements compare with them.
        pooling: Which samples a text gives.
        seconds: What one measurement may take, about; texts that do not fit into it are left out. None keeps all.
    """
    if not batches:
        raise GeometryError("Found no text to measure representations on; expected some. Pass texts=.")
    with lm.borrow():
        kept = _affordable(lm, batches, points, pooling, seconds)
        picks = _spread([sample_count(batch, pooling) for batch in kept], sketch)
        readings = Readings({})
        for batch, pick in lm.progress.each(list(zip(kept, picks, strict=True))):
            rows = read_rows(lm.model, on_device(lm, batch), points, pooling)
            readings.add(rows, pick, sample_count(batch, pooling))
        begin = time.perf_counter()
        spectra = {name: metric.spectrum() for name, metric in readings.spectra.items()}
        spent = time.perf_counter() - begin
        weights = {name: lm.model.get_parameter(name).detach().cpu().clone() for name in edited}
    return Reference(kept, spectra, readings.sketch(), picks, weights, spent)


def on_device(lm: LanguageModel, batch: Batch) -> dict[str, Any]:
    """Arguments of a forward pass.

    Args:
        lm: The language model.
        batch: A batch on the CPU.
    """
    return {**{name: value.to(lm.device) for name, value in batch.items()}, "use_cache": False}


def sample_count(batch: Batch, pooling: Pooling) -> int:
    """Number of samples that a batch gives.

    Args:
        batch: A batch.
        pooling: Which samples a text gives.
    """
    return int(batch["attention_mask"].sum()) if pooling == "tokens" else len(batch["input_ids"])


def float64_home(device: torch.device) -> torch.device:
    """Where float64 sums over a device's tensors live: there, or on the CPU where the device has no float64.

    Args:
        device: The device.
    """
    return device if device.type != "mps" else torch.device("cpu")


def _affordable(
    lm: LanguageModel, batches: Sequence[Batch], points: Sequence[Point], pooling: Pooling, seconds: float | None
) -> list[Batch]:
    """The batches that a measurement has time for; the first is read twice, since the first pass of a model is slow."""
    if seconds is None or len(batches) == 1:
        return list(batches)
    for _ in range(2):
        begin = time.perf_counter()
        read_rows(lm.model, on_device(lm, batches[0]), points, pooling)
        spent = time.perf_counter() - begin
    return list(batches[: max(1, int(seconds / (READINGS * max(spent, 1e-6))))])


def _spread(counts: Sequence[int], wanted: int) -> list[Tensor]:
    """For each batch the indices of its samples among `wanted` ones that are spread evenly over all."""
    total = sum(counts)
    chosen = torch.arange(min(wanted, total)) * total // min(wanted, total)
    starts = [sum(counts[:place]) for place in range(len(counts))]
    return [
        chosen[(chosen >= start) & (chosen < start + count)] - start
        for start, count in zip(starts, counts, strict=True)
    ]
