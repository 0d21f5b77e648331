r"""Solutions under a convex penalty that no closed form covers, such as a sparse update.

With R = V - W_b K and A = Q⁻¹, over updates D = S - W_b:

$$\min_D f(D) + g(D), \qquad f(D) = \tfrac12 \lVert R - D K \rVert^2 + \tfrac{s}{2} \operatorname{tr}(D A D^\top)$$

which for g = 0 is the ledger's one formula. The objective depends on the active columns alone, so the difference of two
solutions is a sequential step that adds up to the one-time solution, for every convex g (Labyrinth, arXiv 2605.26670,
Prop. 3.4). The solver is the accelerated proximal gradient method (Beck and Teboulle 2009) with restarts by the
gradient (O'Donoghue and Candès 2015), started at the last solution.

Certificate. A step from Y with step size 1/L gives X = prox(Y - ∇f(Y)/L), and with it U = L (Y - X) - ∇f(Y), which
lies in ∂g(X). U is feasible for Fenchel's dual problem, and since f is quadratic with Hessian H = K Kᵀ + s A, the
duality gap of (X, U) is ½ ⟨v, v H⁻¹⟩ with v = ∇f(X) + U. It needs no value of g and no conjugate, and bounds both
f(X) + g(X) - min and ½ ‖(X - X*) H^{1/2}‖². H⁻¹ is read from the factor that the ledger has anyway.

Knows a ledger's columns, its prior and a penalty. Refuses to know what the penalty is for.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_edit.algebra.snapshot import Snapshot, Solved
from lightning_edit.errors import LedgerError

_EVERY = 10  # steps between two certificates, each of which costs about as much as a step


@dataclass(frozen=True, kw_only=True)
class Penalty(ABC):
    """A convex function g of the update that is smallest at 0, known by its proximal map. Subclass it.

    Args:
        tolerance: The solution is found when its duality gap is at most this share of ½ ‖V - W_b K‖². Edited outputs
            are then within the root of it, relative to ‖V - W_b K‖.
        max_steps: Give up after this many steps.
    """

    tolerance: float = 1e-12
    max_steps: int = 20_000

    @abstractmethod
    def prox(self, point: Tensor, step: float) -> Tensor:
        """Where g(X) + ‖X - point‖² / (2 step) is smallest.

        Args:
            point: A matrix (d, n), float64.
            step: A positive number.

        Returns:
            X (d, n); the point itself is not written to.
        """


@dataclass(frozen=True, kw_only=True)
class L1Penalty(Penalty):
    """g(D) = w Σ |D_ij|: a sparse update. At w = max |(V - W_b K) Kᵀ| and above, it is 0.

    Args:
        weight: w >= 0.
    """

    weight: float

    def __post_init__(self) -> None:
        """Refuse a weight for which this is not convex."""
        if not 0 <= self.weight < float("inf"):
            raise LedgerError(f"The L1 penalty has weight {self.weight}; expected a finite number >= 0.")

    def prox(self, point: Tensor, step: float) -> Tensor:
        """Move every entry towards 0 by w * step."""
        return point.sign() * (point.abs() - self.weight * step).clamp_min(0)


@dataclass(slots=True)
class _Smooth:
    """The smooth part f of a ledger's objective.

    Args:
        state: The ledger.
        residual: R = V - W_b K (d, N).
    """

    state: Snapshot
    residual: Tensor

    def hessian(self, update: Tensor) -> Tensor:
        """D H = (D K) Kᵀ + s D A.

        Args:
            update: D (m, n).
        """
        state = self.state
        return (update @ state.keys) @ state.keys.mT + state.noise * state.prior.inverse_apply(update.mT).mT

    def inverse_hessian(self, gradient: Tensor) -> Tensor:
        """Apply v H⁻¹ = v Q (I - Π) / s.

        Args:
            gradient: v (m, n).
        """
        state = self.state
        span = state.prior.apply(gradient.mT).mT
        return (span - state.form.correction(span @ state.keys)) / state.noise

    def gradient(self, update: Tensor) -> Tensor:
        """∇f(D) = D H - R Kᵀ.

        Args:
            update: D (d, n).
        """
        return self.hessian(update) - self.residual @ self.state.keys.mT

    def steepness(self) -> float:
        """About the largest eigenvalue of H, by powers of it; the solver corrects it where it is too small."""
        start = torch.randn(4, self.state.prior.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        rows = start.to(self.state.keys.device)
        for _ in range(12):
            rows = self.hessian(torch.linalg.qr(rows.mT).Q.mT)
        return float(torch.linalg.matrix_norm(rows, ord=2))


def solve(state: Snapshot, penalty: Penalty) -> Solved:
    """The penalised solution over the active columns, from the last one.

    Args:
        state: A ledger with noise s > 0 and a prior of full rank.
        penalty: g.

    Raises:
        LedgerError: g is not smallest at 0, or the solution is not found within `penalty.max_steps`.
    """
    smooth = _Smooth(state, state.values - state.base.to(torch.float64) @ state.keys)
    zero = torch.zeros_like(state.base, dtype=torch.float64)
    if bool(penalty.prox(zero, 1.0).any()):
        raise LedgerError(f"{penalty} is not smallest at 0: without edits the weight would move. Expected prox(0) = 0.")
    enough = penalty.tolerance * 0.5 * float(smooth.residual.square().sum())
    point = zero if state.solved is None else state.solved.update
    gap, length, momentum = float("inf"), smooth.steepness(), 1.0
    slope = smooth.gradient(point)
    ahead, slope_ahead = point, slope  # Y and ∇f(Y)
    for step in range(penalty.max_steps):
        following, slope_there, length = _descend(smooth, penalty, ahead, slope_ahead, length)
        if step % _EVERY == 0:
            subgradient = slope_there - slope_ahead + length * (ahead - following)
            gap = 0.5 * float((subgradient * smooth.inverse_hessian(subgradient)).sum())
            if gap <= enough:
                return Solved.of(state, following, gap, step + 1)
        if float(((ahead - following) * (following - point)).sum()) > 0:
            momentum = 1.0  # going on this way would lead uphill
        later = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ratio = (momentum - 1) / later
        ahead = following + ratio * (following - point)
        slope_ahead = slope_there + ratio * (slope_there - slope)  # the gradient is affine
        point, slope, momentum = following, slope_there, later
    raise LedgerError(
        f"The solution under {penalty} is not found in {penalty.max_steps} steps: its duality gap is {gap:.3g}; "
        f"expected {enough:.3g} at most. Allow more steps or a larger tolerance, or give the prior a better condition "
        "(a ridge)."
    )


def _descend(
    smooth: _Smooth, penalty: Penalty, point: Tensor, slope: Tensor, length: float
) -> tuple[Tensor, Tensor, float]:
    """One proximal step that is short enough: where it leads, the gradient there, and the inverse of its length."""
    while True:
        there = penalty.prox(point - slope / length, 1 / length)
        slope_there, move = smooth.gradient(there), there - point
        bend = float(((slope_there - slope) * move).sum())  # ‖move H^{1/2}‖²
        rounding = 1e-12 * float(slope.norm()) * float(move.norm())
        if bend <= length * float(move.square().sum()) * (1 + 1e-9) + rounding:
            return there, slope_there, length
        length *= 1.5
