"""The arithmetic of CounterFact's scores: two answers' log-probabilities against each other."""

import torch
from torch import Tensor

from lightning_edit.errors import EditError


def target_success(wanted: Tensor, other: Tensor) -> Tensor:
    r"""Whether the wanted answer is the likelier one, $1[\log p(\text{wanted}) > \log p(\text{other})]$.

    Equal is no success, and neither is a likelihood that is not a number.

    Args:
        wanted: Log-probabilities of the answers that should win (m,).
        other: Log-probabilities of their rivals (m,).

    Returns:
        Booleans (m,).

    Example:
        >>> target_success(torch.tensor([-1.0, -3.0]), torch.tensor([-2.0, -3.0]))
        tensor([ True, False])
    """
    return torch.gt(*_checked(wanted, other))


def target_magnitude(wanted: Tensor, other: Tensor) -> Tensor:
    r"""By how much the wanted answer is the likelier one, $p(\text{wanted}) - p(\text{other})$, in -1..1.

    With log-probabilities per token, as in the published code, each p is the geometric mean over the answer's tokens.

    Args:
        wanted: Log-probabilities of the answers that should win (m,).
        other: Log-probabilities of their rivals (m,).

    Returns:
        Differences (m,) in float64.

    Example:
        >>> target_magnitude(torch.tensor([0.75]).log(), torch.tensor([0.25]).log()).float()
        tensor([0.5000])
    """
    wanted, other = _checked(wanted, other)
    return wanted.exp() - other.exp()


def harmonic_mean(shares: Tensor) -> Tensor:
    r"""Harmonic mean $n / \sum_i s_i^{-1}$; 0 if any share is 0, nan if any is unknown.

    Args:
        shares: Shares in 0..1, (n,).

    Example:
        >>> harmonic_mean(torch.tensor([1.0, 0.5, 0.5]))
        tensor(0.6000)
    """
    if bool((shares < 0).any()):
        raise EditError(f"Found the shares {shares.tolist()}, expected numbers in 0..1.")
    return len(shares) / (1 / shares).sum()


def _checked(wanted: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64, if they can be log-probabilities of two answers behind the same prompts."""
    if wanted.dim() != 1 or wanted.shape != other.shape:
        raise EditError(
            f"Found log-probabilities of the shapes {tuple(wanted.shape)} and {tuple(other.shape)}, expected two "
            "vectors of one length: one number of each answer for each prompt."
        )
    if bool((torch.cat([wanted, other]) > 1e-3).any()):
        raise EditError("Found a log-probability above 0, expected none; change the sign of negative log-likelihoods.")
    return wanted.double(), other.double()
