"""Closed forms of ROME, EMMET and PMET once more, dense and slow, beside `reference.py` and in its voice."""

from typing import Any

import numpy as np
import torch

from tests.reference import LONG, eliminate, long, solve, tensor


def rome(base: Any, moment: Any, key: Any, residual: Any, bare: Any = None) -> torch.Tensor:
    """ROME as published: u = M⁻¹ k of unit length, W + R uᵀ / (k · u); with `bare`, that key under the fraction."""
    W, M, k, R = long(base), long(moment), long(key).reshape(-1, 1), long(residual).reshape(-1)
    u = solve(M, k)[:, 0]
    u = u / np.sqrt(sum(value * value for value in u))
    below = k[:, 0] if bare is None else long(bare).reshape(-1)
    right = R / sum(a * b for a, b in zip(below, u, strict=True))
    return tensor(W + np.outer(right, u))


def emmet(base: Any, penalty: Any, slack: float, keys: Any, values: Any, basis: Any = None) -> torch.Tensor:
    """min tr(D A Dᵀ) subject to (W_b + D) K + s L = V at the price ‖L‖² s, by the whole Lagrangian system.

    Stationary where A Dᵀ + K Lᵀ = 0 and Kᵀ Dᵀ - s Lᵀ = Rᵀ; rows of D in span(basis) where there is one.
    """
    W, A, K, V = long(base), long(penalty), long(keys), long(values)
    B = np.eye(len(A), dtype=LONG) if basis is None else long(basis)
    inner, count = B.T @ K, K.shape[1]
    system = np.block([[B.T @ A @ B, inner], [inner.T, -slack * np.eye(count, dtype=LONG)]])
    right = np.concatenate([np.zeros((B.shape[1], len(W)), dtype=LONG), (V - W @ K).T])
    return tensor(W + eliminate(system, right)[: B.shape[1]].T @ B.T)
