"""The priors of the closed-form editors, and how one comes back from saved state.

| prior | Q | editors |
|---|---|---|
| `CovariancePrior` | (w M)⁻¹ | MEMIT (w = λ), ROME (w = 1) |
| `RidgePrior` | (w M + μ I)⁻¹ | EMMET, and a rank-deficient M on request |
| `NullSpacePrior` | P / L2 | AlphaEdit |
| `ProjectedPrior` | P (w P M P + L2 I)⁺ P | Memorize-the-Latest with the full normal equations |

Knows the four by name. Refuses to know how any of them works.
"""

from typing import Any

from lightning_edit.algebra.covariance_prior import CovariancePrior, RidgePrior
from lightning_edit.algebra.null_space_prior import NullSpacePrior, ProjectedPrior
from lightning_edit.algebra.prior import Prior
from lightning_edit.errors import StateError

__all__ = ["CovariancePrior", "NullSpacePrior", "Prior", "ProjectedPrior", "RidgePrior", "prior_from_state"]


def prior_from_state(state: dict[str, Any]) -> Prior:
    """Make the prior that a `state_dict` came from, bit for bit and without factoring anything.

    Args:
        state: What `Prior.state_dict` gave.

    Raises:
        StateError: The state names a kind of prior that is not one of these.
    """
    classes: tuple[type[Prior], ...] = (CovariancePrior, RidgePrior, NullSpacePrior, ProjectedPrior)
    for prior in classes:
        if prior.kind == state.get("kind"):
            return prior.from_state(state)
    known = [prior.kind for prior in classes]
    raise StateError(f"Saved state names the prior {state.get('kind')!r}; expected one of {known}.")
