"""ZsRE's token accuracy: how many tokens of the right answer are the likeliest behind the true ones before them.

A teacher-forced number, and called so: the true beginning of the answer is given away at every token but the first, and
a half-right answer counts half. It is here because the ZsRE columns of the literature are made of it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_edit.errors import EditError
from lightning_edit.metrics.functional import Verdicts, as_verdicts
from lightning_edit.metrics.records import ALONE, RecordMetric, record_keys, record_means


def teacher_forced_token_accuracy(right: Sequence[Verdicts], records: Sequence[str] | None = None) -> Tensor:
    r"""Mean over records of the share of a record's target tokens that are the likeliest.

    $$\frac{1}{R} \sum_r \frac{\sum_{y \in r} \sum_t 1[y_t = \arg\max_v p(v \mid x, y_{<t})]}{\sum_{y \in r} |y|}$$

    Args:
        right: For each prompt, whether each token of its target is the likeliest behind the true ones before it.
        records: The record that each prompt belongs to; None makes each a record of its own.

    Example:
        >>> teacher_forced_token_accuracy([[True, False], [True]])
        tensor(0.7500)
        >>> teacher_forced_token_accuracy([[True, False], [True]], ["a", "a"])
        tensor(0.6667)
    """
    return record_means(*_tokens(right, records)).mean().float()


class TeacherForcedTokenAccuracy(RecordMetric):
    """Share of target tokens that are the likeliest behind the true ones before them, averaged by record.

    What MEMIT's evaluation of ZsRE, and AlphaEdit's after it, reports as efficacy (the edit's prompt), generalization
    (its paraphrase) and specificity (an unrelated question, against the dataset's answer).

    Args:
        kwargs: Arguments of every torchmetrics metric.

    Example:
        >>> metric = TeacherForcedTokenAccuracy()
        >>> metric.update([[True, True, False, True], [False]])
        >>> metric.compute()
        tensor(0.3750)
    """

    higher_is_better = True
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    def update(self, right: Sequence[Verdicts], records: Sequence[str] | None = None) -> None:
        """Add prompts.

        Args:
            right: For each prompt, whether each token of its target is the likeliest behind the true ones before it.
            records: The record that each prompt belongs to; None makes each a record of its own.
        """
        keys, values = _tokens(right, records)
        self._keep(values, keys)

    def compute(self) -> Tensor:
        """Mean over records; nan if nothing was seen."""
        return self._means().mean().float()


def _tokens(right: Sequence[Verdicts], records: Sequence[str] | None) -> tuple[Tensor, Tensor]:
    """Keys and values: one for each token where records are named, else one for each prompt."""
    verdicts = [as_verdicts(tokens).flatten() for tokens in right]
    if any(not len(tokens) for tokens in verdicts):
        raise EditError("Found a prompt without target tokens, expected at least one; leave it out.")
    if records is None:
        shares = [tokens.double().mean() for tokens in verdicts]
        values = torch.stack(shares) if shares else torch.zeros(0, dtype=torch.float64)
        return torch.full((len(verdicts),), ALONE, device=values.device), values
    keys = record_keys(records, len(verdicts))
    lengths = torch.tensor([len(tokens) for tokens in verdicts], dtype=torch.long)
    values = torch.cat(verdicts).double() if verdicts else torch.zeros(0, dtype=torch.float64)
    return keys.repeat_interleave(lengths).to(values.device), values
