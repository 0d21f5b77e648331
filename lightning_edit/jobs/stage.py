"""One model on which editors play, one after the other, each from the clean weights.

What every comparing job does with one editor and one stream of edits: hand them over in steps, look at the model
meanwhile, put the weights back. Knows the order of these; which editors, and what is made of the numbers, the jobs say.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, Protocol

import torch

from lightning_edit.data.world import World
from lightning_edit.data.world.abilities import measure_abilities
from lightning_edit.decoding import decode
from lightning_edit.editors.editor import Editor
from lightning_edit.editors.report import EditReport
from lightning_edit.errors import EditError
from lightning_edit.evaluation import (
    Baseline,
    Evaluator,
    Outcome,
    evaluate_counterfact,
    evaluate_token_accuracy,
    shares,
)
from lightning_edit.evaluation.going_on import remark_on_going_on
from lightning_edit.evaluation.questions import DIMENSIONS
from lightning_edit.jobs.protocols import protocol_name
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.weights import read_weight, write_weight
from lightning_edit.module import EditableModule
from lightning_edit.requests import EditRequest
from lightning_edit.runner.results import Curve, RunResult

Weights = dict[int, torch.Tensor]  # (d, n) by layer
Table = Literal["counterfact", "zsre"]
Look = Callable[[], Mapping[str, float]]

TABLES: dict[Table, Callable[[LanguageModel, Sequence[EditRequest]], Mapping[str, float]]] = {
    "counterfact": evaluate_counterfact,
    "zsre": evaluate_token_accuracy,
}


class Plays(Protocol):
    """What can be handed edits: an editor, or something that stands in for one."""

    @property
    def layers(self) -> list[int]:
        """The layers it writes to."""

    def edit(self, module: object, requests: Iterable[EditRequest]) -> EditReport:
        """Make some edits."""


@dataclass
class Stage:
    """The model, and how it is looked at.

    Args:
        lm: The clean model.
        evaluator: What is asked about the edits so far.
        measurements: How often that is asked, evenly spread; the last is at the end.
        tables: Published scores that are computed over all edits at the end.

    `outcomes` is what came of every question of the last measurement.
    """

    lm: LanguageModel
    evaluator: Evaluator
    measurements: int = 1
    tables: Sequence[Table] = ()
    clean: Weights = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    _further: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)  # parameters, and what they held

    def __post_init__(self) -> None:
        if self.measurements < 1:
            raise EditError(f"found measurements={self.measurements}, expected at least 1: the last is at the end.")

    def weights(self, layers: Sequence[int]) -> Weights:
        """A copy of the edited weights as they are.

        Args:
            layers: Their layers.
        """
        return {layer: read_weight(self.lm.projection(layer)).clone() for layer in layers}

    def remember(self, layers: Sequence[int], parameters: Iterable[torch.Tensor] = ()) -> None:
        """Copy what nobody has edited yet, for `restore`.

        Args:
            layers: The layers whose FFN outputs are about to be edited.
            parameters: What else is about to be written, such as MEND's other matrices.
        """
        self.clean |= self.weights([layer for layer in layers if layer not in self.clean])
        known = {id(parameter) for parameter, _ in self._further}
        fresh = [parameter for parameter in parameters if id(parameter) not in known]
        self._further += [(parameter, parameter.detach().clone()) for parameter in fresh]

    def play(
        self,
        editor: Plays,
        stream: Sequence[EditRequest],
        steps: int,
        baseline: Baseline,
        tick: Callable[[], object] = lambda: None,
        look: Look = dict,
    ) -> RunResult:
        """Make all edits in so many steps; the row of the end, and curves over the number of edits.

        An edit that an editor refuses leaves the model as it was and counts as not made: neither among `edits` nor in
        `seconds_per_edit`, but in `failed_steps`, with a note. It is asked about all the same.

        Args:
            editor: A prepared editor.
            stream: The edits.
            steps: Number of steps.
            baseline: What the clean model answered.
            tick: Called after every step.
            look: Further numbers, asked for at each measurement.
        """
        self.remember(editor.layers, editor.weights(self.lm) if isinstance(editor, Editor) else ())
        cuts = [round(len(stream) * step / steps) for step in range(steps + 1)]
        looks = {round(steps * number / self.measurements) for number in range(1, self.measurements + 1)}
        result, seconds, made, pending = RunResult("", {"protocol": protocol_name(self.evaluator)}), 0.0, 0, [0.0]
        failed = result.row["failed_steps"] = 0
        for step, (start, stop) in enumerate(pairwise(cuts), 1):
            began = time.perf_counter()
            try:
                pending.append(editor.edit(self.lm, stream[start:stop]).pending_norm)
                seconds, made = seconds + time.perf_counter() - began, made + stop - start
            except EditError as error:
                failed += 1
                result.notes.append(f"step {step} of {steps} was refused: {error}")
            tick()
            if step in looks:
                scores = self.measure(stream[:stop], stream[start:stop], baseline, editor.layers) | dict(look())
                add_to_curves(result, stop, {"count": float(made), **scores})
                result.row |= {"edits": made, **scores} | ({"seconds_per_edit": seconds / made} if made else {})
        remark = remark_on_going_on(self.outcomes)
        result.notes += [remark] if remark else []
        result.row["failed_steps"] = failed
        result.row |= {"pending_norm": pending[-1], "largest_pending_norm": max(pending)}
        result.row |= self.published(stream)
        return result

    def published(self, stream: Sequence[EditRequest]) -> dict[str, float]:
        """The wanted scores of published tables, of the model as it is now.

        Args:
            stream: The edits.
        """
        return {key: value for table in self.tables for key, value in TABLES[table](self.lm, stream).items()}

    def measure(
        self, so_far: Sequence[EditRequest], newest: Sequence[EditRequest], baseline: Baseline, layers: Sequence[int]
    ) -> dict[str, float]:
        """Shares of right answers about all edits so far and about the newest batch, and how far the weights have gone.

        Args:
            so_far: All edits so far.
            newest: Those of the last step.
            baseline: What the clean model answered.
            layers: The edited layers.
        """
        own = self.evaluator
        self.outcomes = own.ask(self.lm, so_far, baseline)
        scores = shares(self.outcomes, own.by_kind)
        prompts_only = Evaluator(own.budget, 0, 0, 0, own.seed, own.decode, options=own.options, judge=own.judge)
        latest = prompts_only.evaluate(self.lm, newest)
        moved = distance(self.weights(layers), {}, self.clean) if layers else 0.0
        return {**scores, "latest_reliability": latest["reliability"], "relative_change": moved}

    def abilities(self, questions: int) -> dict[str, float]:
        """What the model can still do of what the embedded world asks, and the mean over all abilities.

        Args:
            questions: Questions for each ability.
        """
        scores = measure_abilities(lambda prompts, length: decode(self.lm, prompts, length), World(), questions)
        mean = sum(scores.values()) / len(scores)
        return {"ability/mean": mean, **{f"ability/{name}": value for name, value in scores.items()}}

    def restore(self) -> None:
        """The clean weights again, bit for bit."""
        for layer, weight in self.clean.items():
            write_weight(self.lm.projection(layer), weight)
        with torch.no_grad():
            for parameter, value in self._further:
                parameter.copy_(value)


def load_model(model: str, dtype: str, device: str | None) -> LanguageModel:
    """A model in eval mode, where it can be read fastest.

    Args:
        model: Hub name or folder; "embedded" is the embedded world's model.
        dtype: Precision of the weights.
        device: Where it goes; the first GPU, or else the CPU, where None.
    """
    module = EditableModule.from_pretrained(model, dtype=dtype)
    return module.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).language_model


def distance(weights: Weights, reference: Weights, clean: Weights) -> float:
    """||W - W_ref|| / ||W_ref - W_0|| over all layers that either edited; with no reference ||W - W_0|| / ||W_0||.

    Args:
        weights: W by layer.
        reference: W_ref by layer.
        clean: W_0 by layer, for at least the layers of both.
    """
    layers = sorted({*weights, *reference})

    def norm(one: Weights, other: Weights | None) -> float:
        parts = []
        for layer in layers:
            here = one.get(layer, clean[layer]).double()
            parts.append(here if other is None else here - other.get(layer, clean[layer]).double())
        return float(torch.stack([part.norm() for part in parts]).norm())

    if not reference:
        return norm(weights, clean) / norm(clean, None)
    return norm(weights, reference) / norm(reference, clean)


def add_to_curves(result: RunResult, at: int, scores: Mapping[str, float]) -> None:
    """Put a measurement on the curves; numbers of the edits are named as the callbacks log them.

    Args:
        result: The run.
        at: Where on the curves; with several seeds those places count that all of them have.
        scores: The numbers, with `count` edits among them.
    """
    for key, value in scores.items():
        of_edits = "/" not in key or key.partition("/")[0] in DIMENSIONS
        curve = result.curves.setdefault(f"edit/{key}" if of_edits else key, Curve())
        curve.steps.append(at)
        curve.values.append(value)
