"""What the geometry jobs share: a model, texts to read it on, editors that play, and a reference of the unedited model.

Every editor starts from the clean weights and is measured against the same reference, with the same controls: the model
read twice (every rate is exactly 0) and random updates of the edits' norms. Knows the order of these; what is made of
the numbers, the jobs say.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from torch import Tensor

from lightning_edit.editors.editor import Editor
from lightning_edit.errors import EditError
from lightning_edit.evaluation import Baseline, Evaluator
from lightning_edit.geometry.activations import Point, edited_parameters, ffn_points, random_state, swapped
from lightning_edit.geometry.probe import GeometryProbe
from lightning_edit.geometry.stability import SIZES, stability
from lightning_edit.jobs.cast import Cast, Declared
from lightning_edit.jobs.compare import needed_layers
from lightning_edit.jobs.geometry_reading import points_of, read_batches, read_spectra
from lightning_edit.jobs.geometry_settings import Edits, Reading
from lightning_edit.jobs.inputs import check_files, draw_stream, gather_moments
from lightning_edit.jobs.shared_targets import SharedTargets
from lightning_edit.jobs.stage import Stage, load_model
from lightning_edit.requests import EditRequest

Row = dict[str, float]


@dataclass
class Played:
    """One editor's part.

    Args:
        probe: All rates and spectra, measurement by measurement.
        layers: The edited layers.
        values: What the probe said at each measurement, with `count`.
        scores: What was asked at each measurement.
        notes: Why it ended early, if it did.
        places: What the outputs of the edited layers are called.
    """

    probe: GeometryProbe
    layers: list[int]
    values: list[Row] = field(default_factory=list)
    scores: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Name the places of a decoder alone."""
        self.places = self.places or [f"layer{layer}" for layer in self.layers]

    @property
    def counts(self) -> list[int]:
        """Numbers of edits at which was measured."""
        return [int(row["count"]) for row in self.values]


class GeometryStage:
    """A model with its reference, on which editors play.

    Args:
        model: Hub name or folder of a causal LM; "embedded" is the embedded world's model.
        count: Number of requests.
        edits: Who edits what.
        reading: Where and on what representations are read.
        evaluator: What is asked about the edits; None asks nothing.
        dtype: Precision of the weights.
        device: Where the model goes; the first GPU, or else the CPU, where None.
    """

    def __init__(
        self,
        model: str,
        count: int,
        edits: Edits,
        reading: Reading,
        evaluator: Evaluator | None = None,
        dtype: str = "float32",
        device: str | None = None,
    ) -> None:
        check_files(edits.requests, edits.corpus, edits.statistics, reading.texts)
        self.lm = lm = load_model(model, dtype, device)
        self.reading, self.evaluator, self.seed = reading, evaluator, edits.seed
        self.abilities = 0  # questions asked for each ability of the embedded model at the last measurement
        self.share_targets = False  # whether all closed-form editors solve for targets found once, on the clean model
        self.stream = draw_stream(edits.requests, count, edits.seed, edits.choice)
        methods = {label: Declared.read(own, edits.shared or {}, 1) for label, own in edits.editors.items()}
        needed = needed_layers(lm, methods.values())
        sources = (edits.corpus, edits.statistics, edits.tokens)
        moments = gather_moments(lm, edits.requests, needed, self.stream, *sources)
        self.casts = {label: Cast(method, lm, moments) for label, method in methods.items()}
        editors = [method.build() for method in methods.values()]
        self.edited = sorted({layer for editor in editors for layer in editor.attach(lm)})
        further = [weight for editor in editors for weight in editor.weights(lm)]
        self.parameters = edited_parameters(lm, self.edited, further)
        for editor in editors:
            editor.detach(lm)
        self.stage = Stage(lm, evaluator or Evaluator())
        self.stage.remember(self.edited, further)
        self._targets = SharedTargets(self.stage.clean)
        self.batches = read_batches(lm, reading, edits.requests, self.stream)
        self.baseline: Baseline | None = evaluator.measure_baseline(lm, self.stream) if evaluator else None
        begun = self._probe()
        self.unedited = begun.begin(lm, self.batches)
        self._begun = begun.state_dict()

    @property
    def points(self) -> list[Point]:
        """The places that are measured."""
        return points_of(self.lm, self.reading)

    def probe(self) -> GeometryProbe:
        """A probe that knows the unedited model."""
        made = self._probe()
        made.load_state_dict(self._begun)
        return made

    def play(
        self, label: str, counts: Sequence[int], edits_per_commit: int = 1, random_spectra: bool = False
    ) -> Played:
        """Let an editor make its edits from the clean model, measure at some counts, and put the weights back.

        An editor that can go no further ends its part early, and a note says why.

        Args:
            label: Its label.
            counts: Numbers of edits at which to measure, ascending.
            edits_per_commit: Requests handed over at once, at most; a count ends a batch.
            random_spectra: Also measure what random updates of the edits' norms do to the principal subspaces.
        """
        if sorted({*counts}) != list(counts) or not 1 <= counts[0] <= counts[-1] <= len(self.stream):
            raise EditError(f"found counts={list(counts)}, expected ascending ones from 1 to {len(self.stream)}")
        editor, probe = self.casts[label].editor(self.seed), self.probe()
        if self.share_targets:
            editor.find_targets_with(self._targets)
        played = Played(probe, editor.layers, places=[self.lm.site(layer).label for layer in editor.layers])
        try:
            for start, stop in pairwise([0, *counts]):
                before = self._edit(editor, probe, self.stream[start:stop], edits_per_commit)
                control = self.random_stability(probe) if random_spectra else {}
                played.values.append({"count": stop, **control, **probe.measure(self.lm, stop, before)})
                played.scores.append(self._ask(stop, last=stop == counts[-1]))
        except EditError as error:
            played.notes.append(f"{label} went no further than {len(editor.requests)} edits: {error}")
        finally:
            editor.detach(self.lm)  # hooks and memories go, too
            self.stage.restore()
        if not played.values:
            raise EditError(f"{played.notes[-1]} Expected at least the first {counts[0]} edits.")
        return played

    def random_stability(self, probe: GeometryProbe) -> Row:
        """What a random update of the edits' norms would do to the principal subspaces.

        Args:
            probe: A probe of this stage.
        """
        weights = self.weights()
        reference = probe.reference
        assert reference is not None  # loaded
        start = {name: value.to(weights[name].device) for name, value in reference.weights.items()}
        with self.lm.borrow(), swapped(self.lm.model, random_state(start, weights, self.reading.seed)):
            found = read_spectra(self.lm, self.batches, self.points, self.reading.pooling)
        sizes = probe.sizes
        return {
            f"{name}/random/{what}": value
            for name, metric in found.items()
            for what, value in stability(reference.spectra[name], metric.spectrum(), sizes).items()
        }

    def weights(self) -> dict[str, Tensor]:
        """Copies of the parameters that any editor edits, by name."""
        return {name: self.lm.model.get_parameter(name).detach().clone() for name in self.parameters}

    def _edit(
        self, editor: Editor, probe: GeometryProbe, requests: Sequence[EditRequest], size: int
    ) -> dict[str, Tensor]:
        """Hand requests over; the edited parameters just before the last batch."""
        before = self.weights()
        for start in range(0, len(requests), size):
            before = self.weights()
            editor.edit(self.lm, requests[start : start + size])
        return before

    def _ask(self, count: int, last: bool) -> Row:
        """Shares of right answers about the edits so far, and in the end what else the model can still do."""
        if self.evaluator is None:
            return {}
        abilities = self.stage.abilities(self.abilities) if self.abilities and last else {}
        return {**self.evaluator.evaluate(self.lm, self.stream[:count], self.baseline), **abilities}

    def _probe(self) -> GeometryProbe:
        """A probe that knows nothing yet; the first order is also tested in the last block."""
        reading, lm = self.reading, self.lm
        last = max(site.layer for site in lm.sites)
        known = {point.name for point in self.points}
        further = ffn_points(lm, sorted({*self.edited, last}), ("output", "up"))
        return GeometryProbe(
            self.points,
            self.parameters,
            [point for point in further if point.name not in known],
            pooling=reading.pooling,
            aggregation=reading.aggregation,
            sizes=tuple(reading.subspaces or SIZES),
            sketch=reading.sketch,
            first_order=reading.first_order,
            seed=reading.seed,
        )
