r"""What can be read from a ledger: its columns, the edited weight, and the quantities of the theory.

Knows one state of a ledger. Refuses to change it, except that a solution that is no closed form is kept once found;
what changes a ledger stands in `ledger.py`.
"""

from dataclasses import replace

import torch
from torch import Tensor

from lightning_edit.algebra.checks import check_matrix
from lightning_edit.algebra.gram import GramForm
from lightning_edit.algebra.increment import increment
from lightning_edit.algebra.packing import Kept, Packed, unpack
from lightning_edit.algebra.penalties import Penalty
from lightning_edit.algebra.primal import PrimalForm, covariance
from lightning_edit.algebra.prior import Prior
from lightning_edit.algebra.proximal import solve
from lightning_edit.algebra.snapshot import Snapshot, Solved
from lightning_edit.errors import LedgerError


class LedgerView:
    """The read-outs of a ledger.

    Args:
        state: What the ledger is now.
        penalty: A convex function of S - W_b that S minimises besides.
    """

    def __init__(self, state: Snapshot, penalty: Penalty | None = None) -> None:
        """Look at a state."""
        self._kept: Kept = state
        self.penalty = penalty

    @property
    def _state(self) -> Snapshot:
        """What the ledger is now, ready to be worked on."""
        self._kept = unpack(self._kept)
        return self._kept

    @_state.setter
    def _state(self, state: Snapshot) -> None:
        self._kept = state

    # ---------------------------------------------------------------- what it holds
    @property
    def ids(self) -> list[str]:
        """Ids of the active columns, in the order of `keys` and `values`."""
        return list(self._kept.ids)

    @property
    def keys(self) -> Tensor:
        """K (n, N), float64."""
        return self._kept.keys.double()

    @property
    def values(self) -> Tensor:
        """V (d, N), float64."""
        return self._kept.values.double()

    @property
    def base(self) -> Tensor:
        """W_b (d, n), float32 or float64."""
        return self._kept.base

    @property
    def prior(self) -> Prior:
        """Q."""
        return self._kept.prior

    @property
    def noise(self) -> float:
        """The noise s."""
        return self._kept.noise

    @property
    def form(self) -> str:
        """How the equations are solved now: "gram" or "primal"."""
        return GramForm.kind if isinstance(self._kept, Packed) else self._kept.form.kind

    def __len__(self) -> int:
        """Number of active columns."""
        return len(self._kept.ids)

    # ---------------------------------------------------------------- reading
    def solution(self) -> Tensor:
        """The edited weight S (d, n), float64; a fresh tensor.

        Raises:
            LedgerError: It is not finite (values near the limits of float64).
        """
        state = self._state
        base = state.base.to(torch.float64, copy=True)
        if not state.ids:
            return base
        if self.penalty is None:
            solution = base.add_(state.form.correction(state.values - base @ state.keys))
        else:
            if state.solved is None or not state.solved.solves(state):
                self._state = replace(state, solved=solve(state, self.penalty))
            solution = base.add_(self._solved().update)
        if not bool(torch.isfinite(solution).all()):
            raise LedgerError("The edited weight is not finite; expected finite entries. Drop the newest columns.")
        return solution

    def delta(self) -> tuple[Tensor, Tensor]:
        """The update as a product of low rank: B (d, N) and Q K (n, N) with S - W_b = B (Q K)ᵀ.

        Raises:
            LedgerError: There is a penalty, under which the update has no such factors.
        """
        self._refuse_penalty("update of low rank")
        state = self._state
        form = state.form
        if isinstance(form, PrimalForm):
            form = GramForm.build(state.prior, state.noise, state.keys, list(state.ids))
        return form.coefficients(state.values - state.base.to(torch.float64) @ state.keys), form.response

    def increment(self, since: Kept, deployed: Tensor) -> Tensor:
        """The step (d, n) that the changes since a snapshot ask for, read on a deployed weight W.

        This is the step of methods that do not feed their own error back (the deployment mode "none"); see
        `increment.py`.

        Args:
            since: The ledger when the deployed weight was made.
            deployed: W (d, n).

        Raises:
            LedgerError: The weight is misshapen or not finite, or (noise 0) columns are gone, or there is a penalty.
        """
        self._refuse_penalty("step that is read on the deployed weight")
        weight = check_matrix("deployed weight", deployed, self.base.shape, self.base.device, copy=False)
        return increment(unpack(since), self._state, weight)

    def project(self, rows: Tensor) -> Tensor:
        """X Π, what X does to active keys, with Π = K (s I + Kᵀ Q K)⁻¹ Kᵀ Q.

        Args:
            rows: X (m, n) or (n,).
        """
        state = self._state
        matrix = rows.reshape(-1, rows.shape[-1]) if rows.ndim else rows
        exact = check_matrix("row space", matrix, (len(matrix), state.prior.size), state.base.device)
        return state.form.correction(exact @ state.keys).reshape(rows.shape)

    def covariance(self) -> Tensor:
        """The running key covariance C = s Q⁻¹ + K Kᵀ (r, r) on range(Q); null-space coordinates where Q projects.

        Raises:
            LedgerError: The noise is 0, where C is not defined.
        """
        state = self._state
        if state.noise == 0:
            raise LedgerError("C = s Q⁻¹ + K Kᵀ is not defined for noise 0; expected a noise > 0. Read S instead.")
        return covariance(state.prior, state.noise, state.keys)

    def compensation(self, deployed: Tensor) -> Tensor:
        """The pending error E = (W - S) C (d, r) of Algorithm 1 of Labyrinth, in the coordinates of `covariance`.

        Args:
            deployed: W (d, n).
        """
        weight = check_matrix("deployed weight", deployed, self.base.shape, self.base.device, copy=False)
        pending = weight - self.solution()
        return self.prior.coordinates(pending.mT).mT @ self.covariance()

    def condition(self) -> float:
        """Condition number of the matrix that is factored now; 1 without columns."""
        return self._state.form.condition() if self._state.ids else 1.0

    def rank(self) -> int:
        """Numerical rank of S - W_b, at most min(d, N)."""
        return int(torch.linalg.matrix_rank(self.solution() - self.base)) if self._state.ids else 0

    def _solved(self) -> Solved:
        """The last solution under the penalty."""
        assert self._state.solved is not None
        return self._state.solved

    def _refuse_penalty(self, what: str) -> None:
        """Raise where only a closed form will do."""
        if self.penalty is not None:
            raise LedgerError(f"Under {self.penalty} there is no {what}; expected a ledger without penalty.")
