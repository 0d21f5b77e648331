"""A judge that compares what the model finds likelier, and lets it say nothing.

CounterFact's efficacy asks so: after the edit, is the new target likelier than the old one? A model may pass and still
answer with neither. Where the log-probabilities come from is the caller's business
(`evaluation.log_likelihoods`); give per-token means for names of unlike length, as the published evaluation does.
"""

from collections.abc import Sequence

from lightning_edit.errors import EditError
from lightning_edit.judges.base import Case


class LikelihoodComparison:
    r"""Right is where the likeliest candidate is an accepted answer.

    $$\max_{a \in \text{accepted}} \log p(a \mid x) > \max_{r \in \text{rivals}} \log p(r \mid x)$$

    with the rivals all other candidates in `Case.log_probs`. A tie is no success. Meng et al. (2022), *Locating and
    Editing Factual Associations in GPT*, efficacy score: one accepted answer, the new target, and one rival, the old.

    Example:
        >>> likelier = Case("Ann lives in", "", ("Rome",), log_probs={"Rome": -0.5, "Oslo": -2.0})
        >>> LikelihoodComparison().judge([likelier])
        [True]
    """

    name = "likelihood"

    def judge(self, cases: Sequence[Case]) -> list[bool]:
        """For each case, whether an accepted answer is likelier than every rival.

        Args:
            cases: The answers, with log-probabilities of at least one accepted answer and one rival each.
        """
        return [self._is_right(case) for case in cases]

    def _is_right(self, case: Case) -> bool:
        accepted = [value for name, value in case.log_probs.items() if name in case.accepted]
        rivals = [value for name, value in case.log_probs.items() if name not in case.accepted]
        odd = [value for value in (*accepted, *rivals) if not value <= 0.0]  # nan too
        if not accepted or not rivals or odd:
            raise EditError(
                f"found log-probabilities {dict(case.log_probs)} behind {case.prompt!r}, expected numbers up to 0 for "
                f"an accepted answer {list(case.accepted)} and for a rival; fill in Case.log_probs, or take another "
                "judge."
            )
        return max(accepted) > max(rivals)
