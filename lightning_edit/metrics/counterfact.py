"""CounterFact's scores: is the new answer more likely than the old one, and by how much?

Nothing is decoded. The model is given a prompt with the new answer and the same prompt with the old one, and the two
likelihoods are compared, so a success says which of two answers the model prefers, not that it would say either. The
inputs are log-probabilities; `evaluation/likelihood.py` computes them, and this file knows no model.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from lightning_edit.errors import EditError
from lightning_edit.metrics.comparison import harmonic_mean, target_magnitude, target_success
from lightning_edit.metrics.records import RecordMetric, record_keys, record_means

Kind = Literal["efficacy", "paraphrase", "neighborhood"]
KINDS: tuple[Kind, ...] = ("efficacy", "paraphrase", "neighborhood")


class _TargetComparison(RecordMetric):
    """Mean over records of a comparison between a new and an old answer; subclasses say of what and for whom."""

    higher_is_better = True
    plot_upper_bound = 1.0
    new_wins = True

    def update(self, new: Tensor, old: Tensor, records: Sequence[str] | None = None) -> None:
        """Add prompts.

        Args:
            new: Log-probability of the new answer behind each prompt (m,).
            old: Log-probability of the old answer behind each prompt (m,).
            records: The record that each prompt belongs to; None makes each a record of its own.
        """
        compared = self._compare(new, old) if self.new_wins else self._compare(old, new)
        self._keep(compared, record_keys(records, len(new)))

    def compute(self) -> Tensor:
        """Mean over records of the mean over a record's prompts; nan if nothing was seen."""
        return self._means().mean().float()

    def _compare(self, wanted: Tensor, other: Tensor) -> Tensor:
        raise NotImplementedError


class _Success(_TargetComparison):
    """Share of prompts behind which the right one of two answers is the likelier."""

    plot_lower_bound = 0.0

    def _compare(self, wanted: Tensor, other: Tensor) -> Tensor:
        return target_success(wanted, other)


class _Magnitude(_TargetComparison):
    """By how much the right one of two answers is the likelier."""

    plot_lower_bound = -1.0

    def _compare(self, wanted: Tensor, other: Tensor) -> Tensor:
        return target_magnitude(wanted, other)


class EfficacySuccess(_Success):
    r"""ES: share of edits after whose prompt the new answer is likelier than the old one.

    $$\text{ES} = \mathbb{E}_r \; 1[\log p(o^{new} \mid x_r) > \log p(o^{old} \mid x_r)]$$

    Meng et al. (2022), *Locating and Editing Factual Associations in GPT*, §3.4, "Efficacy Score"; their code compares
    log-probabilities per token, and that is what to feed for numbers comparable with theirs.

    Args:
        kwargs: Arguments of every torchmetrics metric.

    Example:
        >>> metric = EfficacySuccess()
        >>> metric.update(new=torch.tensor([-0.1, -4.0]), old=torch.tensor([-3.0, -1.0]))
        >>> metric.compute()
        tensor(0.5000)
    """


class ParaphraseSuccess(_Success):
    r"""PS: the same behind paraphrases; mean over records of the mean over a record's paraphrases.

    Meng et al. (2022), §3.4, "Paraphrase Score".

    Args:
        kwargs: Arguments of every torchmetrics metric.

    Example:
        >>> metric = ParaphraseSuccess()
        >>> metric.update(torch.tensor([-1.0, -1.0, -9.0]), torch.tensor([-2.0, -2.0, -2.0]), ["a", "b", "b"])
        >>> metric.compute()
        tensor(0.7500)
    """


class NeighborhoodSuccess(_Success):
    r"""NS: share of neighbouring subjects for which the old answer, true of them, stays likelier than the new one.

    $$\text{NS} = \mathbb{E}_r \mathbb{E}_{x \in N(r)} \; 1[\log p(o^{old} \mid x) > \log p(o^{new} \mid x)]$$

    Meng et al. (2022), §3.4, "Neighborhood Score". The unedited model does not score 1: it prefers what it believes.

    Args:
        kwargs: Arguments of every torchmetrics metric.

    Example:
        >>> metric = NeighborhoodSuccess()
        >>> metric.update(new=torch.tensor([-5.0, -1.0]), old=torch.tensor([-1.0, -2.0]), records=["a", "a"])
        >>> metric.compute()
        tensor(0.5000)
    """

    new_wins = False


class EfficacyMagnitude(_Magnitude):
    r"""EM: by how much the new answer is likelier behind the edit's prompt, $p(o^{new} \mid x) - p(o^{old} \mid x)$.

    Meng et al. (2022), §3.4, "Efficacy Magnitude".

    Args:
        kwargs: Arguments of every torchmetrics metric.

    Example:
        >>> metric = EfficacyMagnitude()
        >>> metric.update(new=torch.tensor([0.75]).log(), old=torch.tensor([0.25]).log())
        >>> metric.compute()
        tensor(0.5000)
    """


class ParaphraseMagnitude(_Magnitude):
    """PM: the same behind paraphrases; mean over records of the mean over a record's paraphrases.

    Meng et al. (2022), §3.4.

    Args:
        kwargs: Arguments of every torchmetrics metric.

    Example:
        >>> metric = ParaphraseMagnitude()
        >>> metric.update(torch.tensor([0.5, 0.25]).log(), torch.tensor([0.25, 0.5]).log(), ["a", "a"])
        >>> metric.compute()
        tensor(0.)
    """


class NeighborhoodMagnitude(_Magnitude):
    """NM: by how much the old answer stays likelier than the new one for neighbouring subjects.

    Meng et al. (2022), §3.4.

    Args:
        kwargs: Arguments of every torchmetrics metric.

    Example:
        >>> metric = NeighborhoodMagnitude()
        >>> metric.update(new=torch.tensor([0.25]).log(), old=torch.tensor([0.5]).log())
        >>> metric.compute()
        tensor(0.2500)
    """

    new_wins = False


class Score(RecordMetric):
    r"""S: the harmonic mean of ES, PS and NS, so that none of the three can be bought with another.

    $$S = 3 / (\text{ES}^{-1} + \text{PS}^{-1} + \text{NS}^{-1})$$

    Meng et al. (2022), Table 4. A kind that was never seen makes it nan.

    Args:
        kwargs: Arguments of every torchmetrics metric.

    Example:
        >>> metric = Score()
        >>> new, old = torch.tensor([-1.0, -1.0, -4.0, -1.0]), torch.tensor([-2.0, -2.0, -2.0, -2.0])
        >>> metric.update(new, old, ["efficacy", "paraphrase", "neighborhood", "neighborhood"], ["a"] * 4)
        >>> metric.compute()
        tensor(0.7500)
    """

    higher_is_better = True
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0
    kind: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("kind", [], dist_reduce_fx="cat")
        self._start()

    def update(self, new: Tensor, old: Tensor, kinds: Sequence[Kind], records: Sequence[str] | None = None) -> None:
        """Add prompts of any of the three kinds.

        Args:
            new: Log-probability of the new answer behind each prompt (m,).
            old: Log-probability of the old answer behind each prompt (m,).
            kinds: `efficacy`, `paraphrase` or `neighborhood`, for each prompt.
            records: The record that each prompt belongs to; None makes each a record of its own.
        """
        unknown = sorted(set(kinds) - set(KINDS))
        if unknown or len(kinds) != len(new):
            raise EditError(f"Found {len(new)} prompts and the kinds {list(kinds)}, expected one of {KINDS} for each.")
        codes = torch.tensor([KINDS.index(kind) for kind in kinds], dtype=torch.long, device=new.device)
        right = torch.where(codes == KINDS.index("neighborhood"), target_success(old, new), target_success(new, old))
        self._keep(right, record_keys(records, len(new)))
        self.kind.append(codes.to(self.device))

    def compute(self) -> Tensor:
        """Harmonic mean of the three successes."""
        kind, record = dim_zero_cat(self.kind), dim_zero_cat(self.record)
        value = dim_zero_cat(self.value).view(torch.float64)
        parts = [kind == code for code in range(len(KINDS))]
        return harmonic_mean(torch.stack([record_means(record[part], value[part]).mean() for part in parts])).float()
