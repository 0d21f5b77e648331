"""What a `GeometryMonitor` measures, and on which text: its options, and the probe that is made of them.

Knows places, texts and sizes. Refuses to know when is measured and where numbers go.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as pl
from torch import Tensor

from lightning_edit.callbacks.geometry_texts import collect_batches
from lightning_edit.errors import StrategyError
from lightning_edit.geometry.activations import Part, Pooling, edited_parameters, ffn_points
from lightning_edit.geometry.probe import GeometryProbe
from lightning_edit.geometry.reference import Batch
from lightning_edit.geometry.relative_change import Aggregation
from lightning_edit.geometry.stability import SIZES
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.sites import Layer


@dataclass(frozen=True, slots=True)
class GeometrySetup:
    """Places, texts and sizes.

    Args:
        layers: Layers to measure; None takes those that are edited, or all of them.
        parts: Places in each layer.
        texts: A file or a list of documents; None takes batches that are there for training.
        samples: Samples that the spectra are made of, about; four for each feature of the widest place where None.
        sketch: Samples that are compared with the unedited model.
        max_length: Tokens of a text that are read.
        batch_size: Texts in one forward, where texts are given.
        pooling: Which samples a text gives.
        aggregation: How samples become one rate.
        subspaces: Sizes of the principal subspaces whose stability is measured; the paper's where None.
        first_order: Texts on which the first order is tested; 0 for none.
        seconds: What one measurement may take, about; None for as long as it takes.
        seed: Seed of the random control.
    """

    layers: Sequence[Layer] | None = None
    parts: Sequence[Part] = ("output",)
    texts: str | Path | list[str] | None = None
    samples: int | None = None
    sketch: int = 512
    max_length: int = 128
    batch_size: int = 16
    pooling: Pooling = "tokens"
    aggregation: Aggregation = "mean_abs"
    subspaces: Sequence[int] | None = None
    first_order: int = 8
    seconds: float | None = 60.0
    seed: int = 0

    def __post_init__(self) -> None:
        numbers = {"samples": self.samples, "sketch": self.sketch}
        for name, value in {**numbers, "max_length": self.max_length, "batch_size": self.batch_size}.items():
            if value is not None and value < 1:
                raise StrategyError(f"found {name}={value}, expected at least 1")

    def make_probe(self, lm: LanguageModel, edited: Sequence[int], further: Iterable[Tensor] = ()) -> GeometryProbe:
        """A probe of these places; the first order is also tested behind the edited blocks and in the last one.

        Args:
            lm: The language model.
            edited: Layers that edits write to; none in a control run.
            further: What edits write to beside these layers' output projections.
        """
        everything = [site.layer for site in lm.sites]
        layers = [lm.site(layer).layer for layer in self.layers or edited or everything]
        points = ffn_points(lm, layers, self.parts)
        behind = ffn_points(lm, sorted({*layers, max(everything)}), ("output", "up"))
        return GeometryProbe(
            points,
            edited_parameters(lm, edited or layers, further),
            [point for point in behind if point not in points],
            pooling=self.pooling,
            aggregation=self.aggregation,
            sizes=tuple(SIZES if self.subspaces is None else self.subspaces),
            sketch=self.sketch,
            first_order=self.first_order,
            seconds=self.seconds,
            seed=self.seed,
        )

    def read_texts(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", lm: LanguageModel) -> list[Batch]:
        """Batches of tokens on the CPU, until they give enough samples.

        Args:
            trainer: The Trainer, whose data is read where no text is given.
            pl_module: The module.
            lm: The language model.
        """
        wide = any(part != "output" for part in self.parts)
        enough = self.samples or 4 * max(site.inner if wide else site.width for site in lm.sites)
        sizes = (enough, self.max_length, self.batch_size)
        return collect_batches(trainer, pl_module, lm, self.texts, *sizes, self.pooling)
