"""Token-level locality: do greedy continuations stay what they were, token by token?

Stricter than locality, which reads an answer out of the continuation and forgives spelling: here a comma in another
place counts. No answer has to be right, and none has to be found. This file compares tokens and does not decode.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_edit.errors import EditError
from lightning_edit.metrics.records import RecordMetric, record_keys

Tokens = Sequence[int]
"""The token ids of one continuation, without an end-of-text token."""


def token_match_ratio(before: Sequence[Tokens], after: Sequence[Tokens]) -> Tensor:
    r"""Share of positions at which two continuations have the same token, for each prompt.

    $$\text{MR}_i = \frac{1}{T_i} \sum_{t=1}^{T_i} 1[y_t = y'_t], \qquad T_i = \max(|y|, |y'|)$$

    Where one continuation has ended and the other goes on, nothing matches. Two that are both empty agree.

    Args:
        before: For each prompt, the tokens of the unedited model's greedy continuation.
        after: The edited model's, in the same order.

    Returns:
        Shares (m,) in float64; 1 only where all tokens agree.

    Example:
        >>> token_match_ratio([[5, 6, 7, 8], [1]], [[5, 6, 9], [1]]).float()
        tensor([0.5000, 1.0000])
    """
    if len(before) != len(after):
        raise EditError(
            f"Found {len(before)} continuations before and {len(after)} after, expected one of each for every prompt."
        )
    ratios = [_ratio(list(first), list(second)) for first, second in zip(before, after, strict=True)]
    return torch.tensor(ratios, dtype=torch.float64)


class TokenLocality(RecordMetric):
    r"""Match ratio and exact match of greedy continuations before and after editing.

    `token_locality/match_ratio` is the mean over prompts of the share of equal tokens; `token_locality/exact_match`
    the share of prompts whose continuations are equal throughout. *Revisiting*, Appendix C.5, which names the two
    numbers and gives no formula; this one is ours.

    Args:
        kwargs: Arguments of every torchmetrics metric.

    Example:
        >>> metric = TokenLocality()
        >>> metric.update(before=[[5, 6, 7, 8], [1, 2]], after=[[5, 6, 9], [1, 2]])
        >>> metric.compute()
        {'token_locality/match_ratio': tensor(0.7500), 'token_locality/exact_match': tensor(0.5000)}
    """

    higher_is_better = True
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    def update(self, before: Sequence[Tokens], after: Sequence[Tokens]) -> None:
        """Compare continuations.

        Args:
            before: For each prompt, the tokens of the unedited model's greedy continuation.
            after: The edited model's, in the same order.
        """
        self._keep(token_match_ratio(before, after), record_keys(None, len(before)))

    def compute(self) -> dict[str, Tensor]:
        """Both numbers; nan if nothing was seen."""
        ratios = self._means()
        return {
            "token_locality/match_ratio": ratios.mean().float(),
            "token_locality/exact_match": (ratios == 1).double().mean().float(),
        }


def _ratio(first: list[int], second: list[int]) -> float:
    length = max(len(first), len(second))
    same = sum(a == b for a, b in zip(first, second, strict=False))
    return same / length if length else 1.0
