"""What an `EditGuard` allows and on what it measures: its options, checked, and the probes that are made of them.

Knows budgets, texts and sizes. Refuses to know when is measured and what becomes of a refused batch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import lightning.pytorch as pl

from lightning_edit.callbacks.gate import Action
from lightning_edit.callbacks.geometry_texts import collect_batches
from lightning_edit.callbacks.guard_probes import GuardProbe, LocalityProbe, LossProbe, NumberProbe, RateProbe
from lightning_edit.errors import StrategyError
from lightning_edit.evaluation import AnswerOptions
from lightning_edit.geometry.reference import Batch
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.sites import Layer

KNOWN = ("locality", "loss", "R_median")


@dataclass(frozen=True, slots=True)
class GuardSetup:
    """Budgets, and what is asked and read for them.

    Args:
        budgets: Largest harm of one batch, by probe.
        total_budgets: Largest harm of all batches together, by probe.
        action: What is tried with a batch that costs too much.
        strengths: Shares of the way to their targets that `weaken` tries.
        measures: Functions from the language model to a number of which more is worse, by name.
        locality_budget: Requests whose locality probes are asked.
        locality_each: Probes asked of each.
        options: How they are asked.
        texts: Held-out text: a file or a list of documents; None takes batches that are there for training.
        tokens: Tokens of it that are read, about.
        max_length: Tokens of a text that are read.
        batch_size: Texts in one forward.
        seed: Seed of the choice of probes.
    """

    budgets: Mapping[str, float]
    total_budgets: Mapping[str, float]
    action: Action = "halve"
    strengths: Sequence[float] = (0.5, 0.25)
    measures: Mapping[str, Callable[[Any], float]] = field(default_factory=dict)
    locality_budget: int = 32
    locality_each: int = 2
    options: AnswerOptions = field(default_factory=AnswerOptions)
    texts: str | Path | list[str] | None = None
    tokens: int = 4096
    max_length: int = 128
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what makes no sense before anything is computed."""
        wanted, known = {*self.budgets, *self.total_budgets}, [*KNOWN, *self.measures]
        if unknown := sorted(wanted - set(known)):
            raise StrategyError(f"found budgets for {', '.join(unknown)}; expected some of {', '.join(known)}")
        if unused := sorted(set(self.measures) - wanted):
            raise StrategyError(f"found no budget for {', '.join(unused)}; expected one for each of measures")
        if taken := sorted(set(self.measures) & set(KNOWN)):
            raise StrategyError(f"found {', '.join(taken)} in measures; expected names other than {', '.join(KNOWN)}")
        if self.action not in get_args(Action):
            raise StrategyError(f"found action={self.action!r}; expected one of {', '.join(get_args(Action))}")
        if not all(0 < strength < 1 for strength in self.strengths):
            raise StrategyError(f"found strengths={list(self.strengths)}; expected shares above 0 and below 1")

    def make_probes(
        self,
        trainer: "pl.Trainer",
        pl_module: "pl.LightningModule",
        lm: LanguageModel,
        layers: Sequence[Layer],
        saved: Mapping[str, Any],
    ) -> dict[str, GuardProbe]:
        """Everything that has a budget; what it has to know of the unedited model is read now, or was saved.

        Args:
            trainer: The Trainer, whose data is read where no text is given.
            pl_module: The module.
            lm: The language model.
            layers: Layers that edits write to.
            saved: States of probes out of a checkpoint.
        """
        found: dict[str, GuardProbe] = {}
        for name in dict.fromkeys([*self.budgets, *self.total_budgets]):
            if name in self.measures:
                found[name] = NumberProbe(self.measures[name], name)
            elif name == "locality":
                found[name] = LocalityProbe(self.locality_budget, self.locality_each, self.options, self.seed)
            else:
                batches: list[Batch] = [] if name in saved else self._read_texts(trainer, pl_module, lm)
                found[name] = LossProbe(batches) if name == "loss" else RateProbe(batches, layers)
            if name in saved:
                found[name].load_state_dict(saved[name])
        for probe in found.values():
            if isinstance(probe, RateProbe):
                probe.measure_reference(lm)
        return found

    def _read_texts(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", lm: LanguageModel) -> list[Batch]:
        """Held-out text as tokens."""
        sizes = (self.tokens, self.max_length, self.batch_size)
        return collect_batches(trainer, pl_module, lm, self.texts, *sizes, "tokens")
