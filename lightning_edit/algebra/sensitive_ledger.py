"""A ledger whose output directions have prices: the columns of any ledger, solved by `sensitivity.py`.

Columns come, go and are replaced as in every ledger, and the solution is read again for those that are active. What is
lost is what needs one matrix for all rows: no factor grows (each new set of columns is decomposed anew, N³), and C_t,
E_t and the projector on active keys are not defined. Refuses to know models and requests.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn

import torch
from torch import Tensor

from lightning_edit.algebra import snapshot as steps
from lightning_edit.algebra.checks import check_matrix
from lightning_edit.algebra.ledger import SiteLedger
from lightning_edit.algebra.packing import Kept
from lightning_edit.algebra.prior import Prior
from lightning_edit.algebra.sensitivity import SensitiveForm, Sensitivity
from lightning_edit.errors import LedgerError, StateError

Renew = Callable[[Tensor, Prior], Sensitivity]
"""Directions and weights for a base weight and a prior."""


class SensitiveLedger(SiteLedger):
    """Active columns of one site, and the solution in which fragile output directions move less.

    Args:
        base: W_b (d, n).
        prior: Q.
        sensitivity: Directions and weights of the output; frozen until `reprior`.
        noise: s > 0.
        renew: How `reprior` finds new directions and weights; they stay where None.
    """

    def __init__(
        self, base: Tensor, prior: Prior, sensitivity: Sensitivity, noise: float = 1.0, renew: Renew | None = None
    ) -> None:
        super().__init__(base, prior, noise)
        if noise == 0:
            raise LedgerError("The noise is 0; expected one above it: without noise weights of directions say nothing.")
        self.sensitivity = self._fitting(sensitivity)
        self.renew = renew
        self._solved_form: tuple[Tensor, Prior, Sensitivity, SensitiveForm] | None = None

    # ---------------------------------------------------------------- changing base or prior
    def adopt(self, drift: Tensor) -> None:
        """Take over training's drift, except what it does to active keys, as this ledger would write it.

        Args:
            drift: G (d, n), what the weight became minus what was deployed.
        """
        state = self._state
        change = check_matrix("drift", drift, state.base.shape, state.base.device)
        if state.ids:
            change = change - self._form().correction(change @ state.keys)
        self._state = steps.rebased(state, state.base.to(torch.float64) + change)

    def reprior(self, prior: Prior) -> None:
        """Change the prior, find directions and weights anew, and solve all rows again.

        Args:
            prior: The new Q, on the same key space.
        """
        found = self.sensitivity if self.renew is None else self._fitting(self.renew(self.base, prior))
        super().reprior(prior)
        self.sensitivity = found

    # ---------------------------------------------------------------- reading
    def solution(self) -> Tensor:
        """The edited weight S (d, n), float64; a fresh tensor."""
        state = self._state
        base = state.base.to(torch.float64, copy=True)
        if not state.ids:
            return base
        solution = base + self._form().correction(state.values - base @ state.keys)
        if not bool(torch.isfinite(solution).all()):
            raise LedgerError("The edited weight is not finite; expected finite entries. Drop the newest columns.")
        return solution

    def delta(self) -> tuple[Tensor, Tensor]:
        """The update as a product of low rank: B (d, N) and Q K (n, N) with S - W_b = B (Q K)ᵀ."""
        state, form = self._state, self._form()
        return form.coefficients(state.values - state.base.to(torch.float64) @ state.keys), form.response

    def condition(self) -> float:
        """Condition number of the equations of the cheapest direction, the worst of all; 1 without columns."""
        if not self._state.ids:
            return 1.0
        form = self._form()
        least = self.noise * float(self.sensitivity.weights.min())
        return float((form.values.max() + least) / (form.values.min() + least))

    def increment(self, since: Kept, deployed: Tensor) -> NoReturn:
        """Not defined.

        Args:
            since: Unused.
            deployed: Unused.
        """
        self._refuse("step that is read on the deployed weight")

    def project(self, rows: Tensor) -> NoReturn:
        """Not defined.

        Args:
            rows: Unused.
        """
        self._refuse("projector on the active keys")

    def covariance(self) -> NoReturn:
        """Not defined."""
        self._refuse("key covariance C_t")

    def compensation(self, deployed: Tensor) -> NoReturn:
        """Not defined.

        Args:
            deployed: Unused.
        """
        self._refuse("compensation E_t")

    # ---------------------------------------------------------------- keeping
    def state_dict(self, include_prior: bool = True) -> dict[str, Any]:
        """Tensors and plain containers, directions and weights included.

        Args:
            include_prior: Whether the prior's tensors go along; without, only its fingerprint does.
        """
        return {**super().state_dict(include_prior), "sensitivity": self.sensitivity.state_dict()}

    def load_state_dict(self, state: dict[str, Any], prior: Prior | None = None) -> None:
        """Take over a saved state, or leave everything as it was.

        Args:
            state: What `state_dict` gave.
            prior: The prior to use where the state was saved without one; this ledger's own when None.
        """
        if "sensitivity" not in state:
            raise StateError("The saved ledger has no directions and weights; expected one that was made with them.")
        found = self._fitting(Sensitivity.from_state(state["sensitivity"]))
        super().load_state_dict(state, prior)
        self.sensitivity = found

    @classmethod
    def of(cls, ledger: SiteLedger, sensitivity: Sensitivity, renew: Renew | None = None) -> "SensitiveLedger":
        """A ledger with the base, the prior and the columns of another.

        Args:
            ledger: The other ledger.
            sensitivity: Directions and weights of the output.
            renew: As for the class.

        Raises:
            LedgerError: The other ledger has a penalty, which is solved for all directions alike.
        """
        if ledger.penalty is not None:
            raise LedgerError(f"The ledger has {ledger.penalty}; expected no penalty beside weights of directions.")
        made = cls(ledger.base, ledger.prior, sensitivity, ledger.noise, renew)
        made._kept = ledger.snapshot()
        return made

    def _form(self) -> SensitiveForm:
        """The decomposition for the active columns, made once for each set; snapshots keep the tensors that stay."""
        state, known = self._state, self._solved_form
        now = (state.keys, state.prior, self.sensitivity)
        if known is None or any(a is not b for a, b in zip(known, now, strict=False)):
            form = SensitiveForm.build(state.prior, state.noise, state.keys, self.sensitivity)
            self._solved_form = (*now, form)
            return form
        return known[3]

    def _fitting(self, sensitivity: Sensitivity) -> Sensitivity:
        """Directions and weights where the base is, if they are of its output."""
        if len(sensitivity.weights) != len(self.base):
            raise LedgerError(
                f"The directions are of an output of width {len(sensitivity.weights)}; expected {len(self.base)}."
            )
        device = self.base.device
        return replace(
            sensitivity, directions=sensitivity.directions.to(device), weights=sensitivity.weights.to(device)
        )

    def _refuse(self, what: str) -> NoReturn:
        raise LedgerError(
            f"There is no single {what} when every output direction has its own noise; expected a reading that all "
            'directions share. Read the solution, and deploy with "feedback".'
        )
