"""The executable specification of penalised solutions: coordinate descent, one entry at a time.

Knows numpy only. Each row of the update is a problem of its own; an entry's best value given all others is a soft
threshold, and sweeps go on until nothing moves any more.
"""

from typing import Any

import numpy as np
import torch

from tests.reference import Array, tensor


def _matrix(value: Any) -> Array:
    return np.asarray(value, dtype=np.float64)


def soft(value: float, threshold: float) -> float:
    """Towards 0 by a threshold."""
    return float(np.sign(value) * max(abs(value) - threshold, 0.0))


def _descend(hessian: Array, linear: Array, offset: Array, weight: float) -> Array:
    """argmin over x of ½ x H xᵀ - b x + w |offset + x|₁, by coordinate descent."""
    x = np.zeros_like(linear)
    for _ in range(200_000):
        moved = 0.0
        for j in range(len(x)):
            free = linear[j] - hessian[j] @ x + hessian[j, j] * x[j]
            best = soft(free / hessian[j, j] + offset[j], weight / hessian[j, j]) - offset[j]
            moved, x[j] = max(moved, abs(best - x[j])), best
        if moved < 1e-15:
            return x
    raise AssertionError("coordinate descent has not converged")


def lasso(base: Any, penalty: Any, noise: float, keys: Any, values: Any, weight: float) -> torch.Tensor:
    """min over S of ½ ‖S K - V‖² + (s/2) tr((S - W_b) A (S - W_b)ᵀ) + w |S - W_b|₁."""
    W, A, K, V = _matrix(base), _matrix(penalty), _matrix(keys), _matrix(values)
    hessian, linear = K @ K.T + noise * A, (V - W @ K) @ K.T
    return tensor(W + np.stack([_descend(hessian, row, np.zeros(len(A)), weight) for row in linear]))


def lasso_step(
    base: Any, penalty: Any, noise: float, keys: Any, values: Any, weight: float, before: Any
) -> torch.Tensor:
    """The sequential subproblem of Labyrinth, Prop. 3.4, in shifted form.

    With D the total update so far and L_t the smooth loss of all columns up to now: the step Δ minimises
    q_t(Δ) + ⟨∇L_t(D), Δ⟩ + w |D + Δ|₁, where q_t is the quadratic part of L_t.
    """
    W, A, K, V = _matrix(base), _matrix(penalty), _matrix(keys), _matrix(values)
    D = _matrix(before)
    hessian = K @ K.T + noise * A
    gradient = ((W + D) @ K - V) @ K.T + noise * D @ A
    return tensor(np.stack([_descend(hessian, -row, total, weight) for row, total in zip(gradient, D, strict=True)]))


def objective(base: Any, penalty: Any, noise: float, keys: Any, values: Any, weight: float, update: Any) -> float:
    """What the penalised solution minimises."""
    W, A, K, V, D = (_matrix(x) for x in (base, penalty, keys, values, update))
    data = float(np.sum(((W + D) @ K - V) ** 2)) / 2
    prior = noise * float(np.trace(D @ A @ D.T)) / 2
    return data + prior + weight * float(np.abs(D).sum())
