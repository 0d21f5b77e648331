r"""Accumulation over a sequence of edits, beside the law that it grows in proportion to their number.

$$c_k^{(T)} = \sum_{t=1}^{T} c_k^{(t)}, \qquad R_k^{(T)} \approx T\, R_k^{(1)}$$

(*Revisiting*, Eq. 15 to 17). The sum is an identity; the law holds if every edit pushes the same way, its worst case.
Three numbers of each direction say how near that is: the ratio of both sides of the law; the exponent p of
$R_k^{(T)} \propto T^p$, 1 for the law, 1/2 for pushes that know nothing of each other, 0 for a change that stops
growing; and the coherence, the share of the triangle inequality's bound that is reached. All need a basis that stays:
report its drift beside them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_edit.errors import GeometryError


@dataclass(frozen=True, slots=True)
class LinearLaw:
    """How rates grew with the number of edits.

    Args:
        steps: Numbers of edits T (t,), ascending.
        rates: R_k after each of them (t, r).
        ratio: R_k(T) / (T / T_1 R_k(T_1)), with T_1 the first step (t, r); 1 is the law.
        exponent: Least-squares slope of log R_k over log T (r,); nan for a direction that was ever at 0.
    """

    steps: Tensor
    rates: Tensor
    ratio: Tensor
    exponent: Tensor

    def summary(self) -> dict[str, float]:
        """Medians over directions: of the last step's ratio, and of the exponent."""
        return {
            "law_ratio": float(self.ratio[-1].nanquantile(0.5)),
            "growth_exponent": float(self.exponent.nanquantile(0.5)),
        }


def linear_law(steps: Sequence[float], rates: Tensor) -> LinearLaw:
    """Compare rates with the linear law of Eq. 17.

    Args:
        steps: Number of edits at each measurement, ascending, positive; at least two.
        rates: R_k of the total change at each of them, in one basis (t, r).

    Example:
        >>> law = linear_law([1, 2, 4], torch.tensor([[0.5, 1.0], [1.0, 1.0], [2.0, 1.0]]))
        >>> law.ratio[-1].tolist(), [round(value, 6) for value in law.exponent.tolist()]
        ([1.0, 0.25], [1.0, 0.0])
    """
    counts = torch.tensor(list(steps), dtype=torch.float64)
    exact = rates.detach().to("cpu", torch.float64)
    if exact.ndim != 2 or len(exact) != len(counts) or len(counts) < 2:
        raise GeometryError(
            f"Found {len(counts)} steps and rates of shape {tuple(rates.shape)}; expected at least two steps, and one "
            "row of rates for each."
        )
    if counts[0] <= 0 or bool((counts.diff() <= 0).any()):
        raise GeometryError(f"Found steps {list(steps)}; expected positive numbers of edits, ascending.")
    ratio = exact / (counts[:, None] / counts[0] * exact[0])
    x = counts.log() - counts.log().mean()
    exponent = (x[:, None] * exact.log()).sum(dim=0) / (x @ x)
    exponent[(exact == 0).any(dim=0)] = torch.nan
    return LinearLaw(counts, exact, ratio, exponent)


def coherence(total: Tensor, instants: Tensor) -> Tensor:
    r"""Share of the triangle inequality's bound that the total reaches, of each direction (r,).

    $$\frac{\mathrm{mean}_i |\sum_t c_{k,i}^{(t)}|}{\sum_t \mathrm{mean}_i |c_{k,i}^{(t)}|} \in [0, 1]$$

    It is 1 where every step pushes every sample the same way (Eq. 16), near $T^{-1/2}$ where the steps know nothing of
    each other, and nan where nothing ever moved.

    Args:
        total: Mean of |c_k| of the change from the first state to the last (r,).
        instants: Sum over the steps of the mean of |c_k| of each step's own change (r,), on the same samples.
    """
    if total.shape != instants.shape:
        raise GeometryError(f"Found shapes {tuple(total.shape)} and {tuple(instants.shape)}; expected the same.")
    return total.to(torch.float64) / instants.to(torch.float64)
