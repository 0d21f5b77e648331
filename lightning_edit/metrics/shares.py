"""The four dimensions of an edit's quality as torchmetrics, and locality's look-alike.

All are shares of right answers; they differ in what is asked and in what counts as right, which is what their
docstrings say. States are integer sums, so they add up over batches and processes exactly, and a Trainer in half
precision leaves them alone. This file does not decode and does not judge: it is fed verdicts.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_edit.errors import EditError
from lightning_edit.metrics.functional import Verdicts, as_verdicts, count_by_kind


class ShareRight(Metric):
    r"""Share of right answers over everything seen so far.

    $$\text{share} = \frac{\sum_i 1[\text{answer}_i \text{ is right}]}{N}$$

    Every answer weighs the same, whatever request or kind it belongs to. Nothing seen gives nan.

    Args:
        kinds: Kinds of probes to count apart as well; every update must then say the kind of each answer.
        kwargs: Arguments of every torchmetrics metric.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0
    right: Tensor
    total: Tensor

    def __init__(self, kinds: Sequence[str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kinds = None if kinds is None else tuple(kinds)
        shape = () if kinds is None else (len(kinds),)
        self.add_state("right", torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, right: Verdicts, kinds: Sequence[str] | None = None) -> None:
        """Count answers.

        Args:
            right: For each answer, whether it is right.
            kinds: For each answer, the kind of its probe; only with `kinds` given to the metric, and then always.
        """
        if (kinds is None) != (self.kinds is None):
            found = f"{'no' if kinds is None else 'the'} kinds of the answers"
            raise EditError(
                f"Found {found} in an update, and {type(self).__name__}(kinds={self.kinds}); give both or none."
            )
        if kinds is None or self.kinds is None:
            verdicts = as_verdicts(right)
            self.right += verdicts.sum().to(self.right)
            self.total += verdicts.numel()
        else:
            counted, seen = count_by_kind(right, kinds, self.kinds)
            self.right += counted.to(self.right)
            self.total += seen.to(self.total)

    def compute(self) -> Tensor | dict[str, Tensor]:
        """Share of right answers; with kinds also of each kind seen, under `name` and `name/kind`."""
        share = self.right.sum() / self.total.sum()
        if self.kinds is None:
            return share
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()
        shares = zip(self.kinds, self.right / self.total, self.total, strict=True)
        return {name: share} | {f"{name}/{kind}": value for kind, value, seen in shares if seen > 0}


class Reliability(ShareRight):
    """Share of edits that hold: asked the edit's own prompt, the model says the target.

    Zhang et al. (2024), *A Comprehensive Study of Knowledge Editing*, "edit success"; in *Revisiting* with
    autoregressive decoding in place of teacher forcing.

    Args:
        kwargs: Arguments of every torchmetrics metric.

    Example:
        >>> from lightning_edit.judge import exact_match
        >>> metric = Reliability()
        >>> metric.update([exact_match("Lyon.", "Lyon"), exact_match("Paris", "Lyon")])
        >>> metric.compute()
        tensor(0.5000)
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)


class Generalization(ShareRight):
    """Share of paraphrases of edited facts after which the model says the target.

    Args:
        kwargs: Arguments of every torchmetrics metric.

    Example:
        >>> metric = Generalization()
        >>> metric.update([True, True, False, True])
        >>> metric.compute()
        tensor(0.7500)
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)


class Locality(ShareRight):
    """Share of unrelated questions that the model answers as it did before any edit.

    *Revisiting*, Eq. 4: right is what the unedited model said, be it true or false. Judged against a dataset's answers
    instead, the number is an accuracy, not a locality: `LocalityGold`. Every probe weighs the same (micro), whatever
    request or kind it belongs to; the kinds have columns of their own.

    Args:
        kinds: Kinds of probes to count apart, such as `neighborhood` or `relation_specificity`.
        kwargs: Arguments of every torchmetrics metric.

    Example:
        >>> metric = Locality(kinds=["neighborhood", "distraction"])
        >>> metric.update([True, False, True], ["neighborhood", "neighborhood", "distraction"])
        >>> metric.compute()
        {'locality': tensor(0.6667), 'locality/neighborhood': tensor(0.5000), 'locality/distraction': tensor(1.)}
    """


class LocalityGold(ShareRight):
    """Share of unrelated questions that the model answers as the dataset does.

    The accuracy on facts beside the edited ones: a low number before any edit says that the model never knew them, and
    it can rise where editing changes answers. Under the name of locality it is what the code of *Revisiting* and of
    several other repositories counts. `evaluate` reports it as `locality_gold` where it is given no baseline.

    Args:
        kinds: Kinds of probes to count apart.
        kwargs: Arguments of every torchmetrics metric.

    Example:
        >>> metric = LocalityGold(kinds=["neighborhood"])
        >>> metric.update([True, False], ["neighborhood", "neighborhood"])
        >>> metric.compute()
        {'locality_gold': tensor(0.5000), 'locality_gold/neighborhood': tensor(0.5000)}
    """


class Portability(ShareRight):
    """Share of questions whose answer follows from an edit and that the model answers so.

    Two-hop questions, other names of the subject, the inverse relation: Yao et al. (2023), *Editing Large Language
    Models: Problems, Methods, and Opportunities*.

    Args:
        kinds: Kinds of probes to count apart, such as `reasoning` or `subject_aliasing`.
        kwargs: Arguments of every torchmetrics metric.

    Example:
        >>> metric = Portability()
        >>> metric.update([False, True])
        >>> metric.compute()
        tensor(0.5000)
    """
