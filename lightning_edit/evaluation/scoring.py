"""How likely given targets are, in three numbers each: whole, per token, and whether every token is the likeliest.

The short form of `likelihood.py`, which says what teacher forcing means and what it hides.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from lightning_edit.evaluation.likelihood import score_continuations
from lightning_edit.model.language_model import LanguageModel


@dataclass(frozen=True, slots=True)
class TargetScores:
    """Scores of m targets, on the CPU.

    Args:
        sum: Log-probability of the whole target, (m,).
        mean: Log-probability per token of the target, (m,).
        top: Whether every token of the target is the likeliest one, (m,) of bool.
    """

    sum: Tensor
    mean: Tensor
    top: Tensor


def target_probabilities(
    lm: LanguageModel, prompts: Sequence[str], targets: Sequence[str], batch_size: int = 64
) -> TargetScores:
    r"""Log-probabilities of targets behind prompts, teacher-forced.

    $$\text{sum} = \sum_t \log p(y_t \mid x, y_{<t}), \qquad \text{mean} = \text{sum} / |y|$$

    over the tokens of `prompt + " " + target` that reach beyond the prompt. "The new target is more likely than the
    old" compares `mean`, as the published code of Meng et al. (2022) does in CounterFact's efficacy score; `sum`
    prefers short targets.

    Args:
        lm: The language model.
        prompts: Prompts without white space at their ends.
        targets: One target for each prompt, without a leading space.
        batch_size: Texts in one forward.
    """
    scores = score_continuations(lm, prompts, targets, batch_size)
    return TargetScores(scores.sum.float(), scores.mean.float(), scores.exact)
