"""What an `EditGuard` measures around a batch: cheap questions, each with one number that says how much worse it got.

Knows language models, texts and probes of requests. Refuses to know editors, the Trainer, and how much is too much.
A probe takes the model as it is for its standard, is asked for the harm once a batch is in the weights, and moves the
standard when the batch may stay.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from lightning_edit.evaluation import AnswerOptions, Evaluator, say
from lightning_edit.evaluation.questions import locality_prompts
from lightning_edit.geometry.activations import ffn_points, read_rows
from lightning_edit.geometry.comparison import Comparison
from lightning_edit.geometry.metrics import RepresentationSpectrum
from lightning_edit.geometry.reference import Batch, float64_home, on_device
from lightning_edit.geometry.relative_change import summarise
from lightning_edit.geometry.spectrum import Spectrum
from lightning_edit.judge import exact_match
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.sites import Layer
from lightning_edit.requests import EditRequest, normalise

Measure = Callable[[LanguageModel], float]


class GuardProbe(Protocol):
    """One number of harm.

    Attributes:
        says: What the number is, as a reason says it.
    """

    says: str

    def begin(self, lm: LanguageModel, known: Sequence[EditRequest]) -> None:
        """Take the model as it is for the standard.

        Args:
            lm: The language model before the batch.
            known: All requests so far, those that are about to be edited among them.
        """

    def harm(self, lm: LanguageModel) -> float:
        """How much worse than the standard the model is; 0 where nothing changed.

        Args:
            lm: The language model with the batch in its weights.
        """

    def accept(self) -> None:
        """What was measured last is the new standard."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers: what the probe has to remember from one batch to the next."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state.

        Args:
            state: What `state_dict` gave.
        """


class LocalityProbe:
    """Share of answers to locality probes that a batch changes.

    Asked are probes of the batch and of a fixed, seeded sample of earlier requests, except what a request changes.

    Args:
        budget: Requests whose probes are asked.
        each: Probes asked of each.
        options: How to ask.
        seed: Seed of the choice.
    """

    says = "the share of locality answers that changed"

    def __init__(self, budget: int = 32, each: int = 2, options: AnswerOptions | None = None, seed: int = 0) -> None:
        self.options = options or AnswerOptions()
        self._drawn = Evaluator(budget, paraphrases=0, locality=each, portability=0, seed=seed, options=self.options)
        self._standard: dict[str, str] = {}
        self._now: dict[str, str] = {}
        self._warned = False

    def begin(self, lm: LanguageModel, known: Sequence[EditRequest]) -> None:
        """See `GuardProbe`."""
        changed = {normalise(text) for request in known for text in (request.prompt, *request.paraphrases)}
        prompts = [text for text in locality_prompts(self._drawn.draw(known)) if normalise(text) not in changed]
        if not prompts and not self._warned:
            self._warned = True
            rank_zero_warn(
                "EditGuard has a budget for locality, but the requests bring no locality probes; expected some. "
                "Nothing is refused for locality until they do."
            )
        self._standard = say(lm, prompts, self.options)

    def harm(self, lm: LanguageModel) -> float:
        """See `GuardProbe`."""
        self._now = say(lm, self._standard, self.options)
        changed = sum(not exact_match(self._now[prompt], text) for prompt, text in self._standard.items())
        return changed / max(len(self._standard), 1)

    def accept(self) -> None:
        """See `GuardProbe`."""
        self._standard = self._now

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the standard is taken anew for every commit."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `GuardProbe`."""


class NumberProbe:
    """A number of which more is worse: its growth is the harm.

    Args:
        measure: The number, from the language model.
        says: What it is.
    """

    def __init__(self, measure: Measure, says: str) -> None:
        self.says = f"the growth of {says}"
        self._measure = measure
        self._standard = self._now = 0.0

    def begin(self, lm: LanguageModel, known: Sequence[EditRequest]) -> None:
        """See `GuardProbe`."""
        self._standard = float(self._measure(lm))

    def harm(self, lm: LanguageModel) -> float:
        """See `GuardProbe`."""
        self._now = float(self._measure(lm))
        return self._now - self._standard

    def accept(self) -> None:
        """See `GuardProbe`."""
        self._standard = self._now

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the standard is taken anew for every commit."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `GuardProbe`."""


class LossProbe(NumberProbe):
    """Growth of the mean next-token loss on held-out text, in nats per token.

    Args:
        batches: `input_ids` and `attention_mask` of the text; None until a state is loaded.
    """

    def __init__(self, batches: Sequence[Batch]) -> None:
        super().__init__(self._loss, "the loss on held-out text")
        self.batches = list(batches)

    def _loss(self, lm: LanguageModel) -> float:
        total = count = 0.0
        with lm.borrow():
            for batch in self.batches:
                stack = "decoder_" if lm.layout.separate else ""  # whose tokens are predicted
                mask = batch[f"{stack}attention_mask"][:, 1:].to(lm.device, torch.bool)
                logits = lm.model(**on_device(lm, batch)).logits[:, :-1][mask].float()
                wanted = batch[f"{stack}input_ids"][:, 1:].to(lm.device)[mask]
                total += float(torch.nn.functional.cross_entropy(logits, wanted, reduction="sum"))
                count += int(mask.sum())
        return total / max(count, 1)

    def state_dict(self) -> dict[str, Any]:
        """The text, so that a resumed run measures the same."""
        return {"batches": [dict(batch) for batch in self.batches]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `GuardProbe`."""
        self.batches = [dict(batch) for batch in state["batches"]]


class RateProbe:
    r"""Median relative change rate $R_k$ of what a batch does at the edited layers' outputs, mean over the layers.

    The scale of each direction is the model's at the beginning (*Revisiting*, Definition 4.4), see `geometry`.

    Args:
        batches: `input_ids` and `attention_mask` of the text.
        layers: The layers.
    """

    says = "the median relative change rate"

    def __init__(self, batches: Sequence[Batch], layers: Sequence[Layer]) -> None:
        self.batches, self.layers = list(batches), list(layers)
        self.spectra: dict[str, Spectrum] = {}
        self._standard: list[dict[str, Tensor]] = []
        self._now: list[dict[str, Tensor]] = []

    def measure_reference(self, lm: LanguageModel) -> None:
        """Read the scales of the model as it is, unless a state brought them.

        Args:
            lm: The language model before any edit.
        """
        if self.spectra:
            return
        found: dict[str, RepresentationSpectrum] = {}
        for rows in self._read(lm):
            for name, values in rows.items():
                if name not in found:
                    found[name] = RepresentationSpectrum(values.shape[-1]).to(float64_home(values.device))
                found[name].update(values)
        self.spectra = {name: metric.spectrum() for name, metric in found.items()}

    def begin(self, lm: LanguageModel, known: Sequence[EditRequest]) -> None:
        """See `GuardProbe`."""
        self._standard = self._read(lm)

    def harm(self, lm: LanguageModel) -> float:
        """See `GuardProbe`."""
        self._now = self._read(lm)
        home = float64_home(lm.device)
        change = Comparison({name: known.to(home) for name, known in self.spectra.items()}, "mean_abs")
        for after, before in zip(self._now, self._standard, strict=True):
            change.update(after, before)
        medians = [summarise(rates)["median"] for rates in change.rates().values()]
        return sum(medians) / len(medians)

    def accept(self) -> None:
        """See `GuardProbe`."""
        self._standard = self._now

    def state_dict(self) -> dict[str, Any]:
        """The text and the scales."""
        spectra = {name: known.state_dict() for name, known in self.spectra.items()}
        return {"batches": [dict(batch) for batch in self.batches], "spectra": spectra}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `GuardProbe`."""
        self.batches = [dict(batch) for batch in state["batches"]]
        self.spectra = {name: Spectrum.from_state(known) for name, known in state["spectra"].items()}

    def _read(self, lm: LanguageModel) -> list[dict[str, Tensor]]:
        """Representations at the edited layers' outputs, batch by batch."""
        points = ffn_points(lm, self.layers)
        with lm.borrow():
            return [read_rows(lm.model, on_device(lm, batch), points) for batch in self.batches]
