r"""Solutions under a convex penalty that no closed form covers, such as a sparse update.

With R = V - W_b K and A = Q⁻¹, over updates D = S - W_b:

$$\min_D f(D) + g(D), \qquad f(D) = \tfrac12 \lVert R - D K \rVert^2 + \tfrac{s}{2} \operatorname{tr}(D A D^\top)$$

which for g = 0 is the ledger's one formula. The objective depends on the active columns alone, so the difference of two
solutions is a sequential step that adds up to the one-time solution, for every convex g (Labyrinth, arXiv 2605.26670,
Prop. 3.4). The solver is the alternating direction method of multipliers (Boyd et al. 2011, section 3.4.3 for its
relaxation, 3.4.1 for how θ is balanced), started at the last solution: with Hessian H = K Kᵀ + s A of f,

    X = (R Kᵀ + θ Z - U)(H + θ I)⁻¹,    Z = prox(X' + U / θ, 1 / θ),    U = U + θ (X' - Z),    X' = 1.6 X - 0.6 Z_before

so f is minimised exactly at every step, whatever the condition of H. A gradient method would need about its root in
steps, which is a thousand on key statistics of ordinary text.

Certificate. U lies in ∂g(Z), so it is feasible for Fenchel's dual problem, and since f is quadratic the duality gap of
(Z, U) is ½ ⟨v, v H⁻¹⟩ with v = ∇f(Z) + U. It needs no value of g and no conjugate, and bounds both
f(Z) + g(Z) - min and ½ ‖(Z - D*) H^{1/2}‖². H⁻¹ is read from the factor that the ledger has anyway.

Knows a ledger's columns, its prior and a penalty. Refuses to know what the penalty is for.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from lightning_edit.algebra.penalties import Penalty
from lightning_edit.algebra.snapshot import Snapshot, Solved
from lightning_edit.algebra.triangles import solve_right
from lightning_edit.errors import LedgerError

_EVERY = 10  # steps between two certificates, each of which costs about two steps
_RELAXATION = 1.6
_UNBALANCED = 2.0  # by how much θ has to be off before H + θ I is factored anew


@dataclass(frozen=True, slots=True)
class _Smooth:
    """The smooth part f of a ledger's objective.

    Args:
        state: The ledger.
        matrix: H = K Kᵀ + s A (n, n).
        linear: R Kᵀ (d, n).
        scale: ½ ‖R‖², which gaps are compared with.
    """

    state: Snapshot
    matrix: Tensor
    linear: Tensor
    scale: float

    @classmethod
    def of(cls, state: Snapshot) -> Self:
        """What a ledger minimises.

        Args:
            state: The ledger.
        """
        residual = state.values - state.base.to(torch.float64) @ state.keys
        matrix = state.noise * state.prior.precision() + state.keys @ state.keys.mT
        return cls(state, matrix, residual @ state.keys.mT, 0.5 * float(residual.square().sum()))

    def gradient(self, update: Tensor) -> Tensor:
        """∇f(D) = D H - R Kᵀ.

        Args:
            update: D (d, n).
        """
        return update @ self.matrix - self.linear

    def gap(self, update: Tensor, subgradient: Tensor) -> float:
        """½ ⟨v, v H⁻¹⟩ for v = ∇f(D) + U, with v H⁻¹ = v Q (I - Π) / s.

        Args:
            update: D (d, n).
            subgradient: U (d, n), an element of ∂g(D).
        """
        state, slope = self.state, self.gradient(update) + subgradient
        span = state.prior.apply(slope.mT).mT
        return 0.5 * float((slope * (span - state.form.correction(span @ state.keys))).sum()) / state.noise

    def factor(self, theta: float) -> Tensor:
        """The Cholesky factor of H + θ I (n, n).

        Args:
            theta: θ.
        """
        shifted = self.matrix.clone()
        shifted.diagonal().add_(theta)
        lower: Tensor = torch.linalg.cholesky(shifted)
        return lower.contiguous()


def solve(state: Snapshot, penalty: Penalty) -> Solved:
    """The penalised solution over the active columns, from the last one.

    Args:
        state: A ledger with noise s > 0 and a prior of full rank.
        penalty: g.

    Raises:
        LedgerError: g is not smallest at 0, or the solution is not found within `penalty.max_steps`.
    """
    smooth = _Smooth.of(state)
    zero = torch.zeros_like(smooth.linear)
    if bool(penalty.prox(zero, 1.0).any()):
        raise LedgerError(f"{penalty} is not smallest at 0: without edits the weight would move. Expected prox(0) = 0.")
    enough, gap, look = penalty.tolerance * smooth.scale, float("inf"), _EVERY
    point, dual = _start(smooth, penalty, zero if state.solved is None else state.solved.update)
    theta = float(smooth.matrix.diagonal().log().mean().exp())  # of H's own scale, whatever its condition
    lower = smooth.factor(theta)
    for step in range(1, penalty.max_steps + 1):
        free = solve_right(smooth.linear + theta * point - dual, lower)
        relaxed = _RELAXATION * free + (1 - _RELAXATION) * point + dual / theta
        before, point = point, penalty.prox(relaxed, 1 / theta)
        dual = theta * (relaxed - point)
        if step % _EVERY == 0 or step == 1:
            gap = smooth.gap(point, dual)
            if gap <= enough:
                return Solved.of(state, point, gap, step)
        if step == look:  # ever more rarely, so that θ settles and the method converges
            look *= 2
            ratio = _balance(free, point, theta * (point - before), dual)
            if not 1 / _UNBALANCED <= ratio <= _UNBALANCED:
                theta *= ratio
                lower = smooth.factor(theta)
    raise LedgerError(
        f"The solution under {penalty} is not found in {penalty.max_steps} steps: its duality gap is {gap:.3g}; "
        f"expected {enough:.3g} at most. Allow more steps or a larger tolerance, or give the prior a better condition "
        "(a ridge)."
    )


def _start(smooth: _Smooth, penalty: Penalty, update: Tensor) -> tuple[Tensor, Tensor]:
    """A point near an update, and the element of ∂g there that comes close to -∇f: one short proximal step's."""
    length = float(smooth.matrix.abs().sum(dim=0).max())  # at least H's largest eigenvalue
    slope = smooth.gradient(update)
    point = penalty.prox(update - slope / length, 1 / length)
    return point, length * (update - point) - slope


def _balance(free: Tensor, point: Tensor, change: Tensor, dual: Tensor) -> float:
    """By how much θ should grow for X - Z and θ (Z - Z_before) to be equally small, beside Z and U.

    Args:
        free: X (d, n).
        point: Z (d, n).
        change: θ (Z - Z_before) (d, n).
        dual: U (d, n).
    """
    primal = float((free - point).norm()) * float(dual.norm())
    other = float(change.norm()) * max(float(free.norm()), float(point.norm()))
    return min(max((primal / other) ** 0.5, 0.1), 10.0) if primal > 0 and other > 0 else 1.0
