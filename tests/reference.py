"""The executable specification: every formula of the algebra once more, dense, slow and independent of the package.

Knows numpy only. Refuses cleverness: normal equations are formed and solved as they are written in the papers, entries
are visited in loops. Where rounding would blur a comparison the numbers are 80-bit long doubles (plain doubles on
machines that have none). Arguments are anything `numpy.asarray` takes; results are float64 torch tensors.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import torch

Array = np.ndarray[Any, Any]
LONG = np.longdouble


def long(matrix: Any) -> Array:
    """A matrix in extended precision."""
    return np.asarray(matrix).astype(LONG)


def tensor(matrix: Array) -> torch.Tensor:
    """A matrix back in float64."""
    return torch.from_numpy(np.ascontiguousarray(matrix.astype(np.float64)))


def relative(found: Any, expected: Any) -> float:
    """‖found - expected‖ / ‖expected‖."""
    a, b = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    assert a.shape == b.shape, (a.shape, b.shape)
    return float(np.linalg.norm(a - b) / max(float(np.linalg.norm(b)), 1e-300))


def cholesky(matrix: Array) -> Array:
    """Lower L with L Lᵀ = matrix, column by column."""
    lower = np.zeros_like(matrix)
    for j in range(len(matrix)):
        lower[j, j] = np.sqrt(matrix[j, j] - lower[j, :j] @ lower[j, :j])
        lower[j + 1 :, j] = (matrix[j + 1 :, j] - lower[j + 1 :, :j] @ lower[j, :j]) / lower[j, j]
    return lower


def solve(matrix: Array, right: Array) -> Array:
    """matrix⁻¹ right for a positive definite matrix, with two sweeps of refinement."""
    lower = cholesky(matrix)

    def substitute(columns: Array) -> Array:
        result = columns.copy()
        for i in range(len(lower)):
            result[i] = (result[i] - lower[i, :i] @ result[:i]) / lower[i, i]
        for i in reversed(range(len(lower))):
            result[i] = (result[i] - lower[i + 1 :, i] @ result[i + 1 :]) / lower[i, i]
        return result

    answer = substitute(right)
    for _ in range(2):
        answer = answer + substitute(right - matrix @ answer)
    return answer


def eliminate(matrix: Array, right: Array) -> Array:
    """matrix⁻¹ right for any regular matrix: Gaussian elimination with row pivots."""
    work = np.concatenate([matrix, right], axis=1)
    size = len(matrix)
    for j in range(size):
        pivot = j + int(np.argmax(np.abs(work[j:, j])))
        work[[j, pivot]] = work[[pivot, j]]
        for i in range(size):
            if i != j:
                work[i] = work[i] - work[j] * (work[i, j] / work[j, j])
    return work[:, size:] / np.diagonal(work)[:, None]


def moment(keys: Any, mask: Any = None) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Second moment, mean and count of rows, one token at a time."""
    rows = long(keys).reshape(-1, np.asarray(keys).shape[-1])
    counts = np.ones(len(rows), dtype=bool) if mask is None else np.asarray(mask).reshape(-1).astype(bool)
    second, total, count = np.zeros((rows.shape[1], rows.shape[1]), dtype=LONG), np.zeros(rows.shape[1], dtype=LONG), 0
    for row, use in zip(rows, counts, strict=True):
        if use:
            second, total, count = second + np.outer(row, row), total + row, count + 1
    return tensor(second / count), tensor(total / count), count


def one_time(base: Any, penalty: Any, noise: float, keys: Any, values: Any, basis: Any = None) -> torch.Tensor:
    """The one-time solution by dense normal equations.

    min over D = S - W_b with rows in span(basis) of tr(D A Dᵀ) + (1/s) ‖(W_b + D) K - V‖², with A the penalty Q⁻¹:
    D = (V - W_b K) Kᵀ (s A + K Kᵀ)⁻¹, everything in coordinates of the basis where there is one.
    """
    W, A, K, V = long(base), long(penalty), long(keys), long(values)
    B = np.eye(len(A), dtype=LONG) if basis is None else long(basis)
    inner = B.T @ K
    C = noise * (B.T @ A @ B) + inner @ inner.T
    return tensor(W + solve(C, inner @ (V - W @ K).T).T @ B.T)


def interpolation(base: Any, penalty: Any, keys: Any, values: Any) -> torch.Tensor:
    """Noise 0: min tr(D A Dᵀ) subject to (W_b + D) K = V, by the whole Lagrangian system."""
    W, A, K, V = long(base), long(penalty), long(keys), long(values)
    size, count = K.shape
    system = np.block([[A, K], [K.T, np.zeros((count, count), dtype=LONG)]])
    right = np.concatenate([np.zeros((size, len(W)), dtype=LONG), (V - W @ K).T])
    return tensor(W + eliminate(system, right)[:size].T)


def recursion(base: Any, penalty: Any, batches: list[tuple[Any, Any]]) -> torch.Tensor:
    """MEMIT with history, noise 1: D_t = (V_t - W K_t) K_tᵀ (A + Σ K Kᵀ)⁻¹, step by step."""
    W, C = long(base), long(penalty)
    for K, V in ((long(k), long(v)) for k, v in batches):
        C = C + K @ K.T
        W = W + solve(C, K @ (V - W @ K).T).T
    return tensor(W)


def alphaedit(base: Any, projector: Any, l2: float, batches: list[tuple[Any, Any]]) -> torch.Tensor:
    """AlphaEdit as published: Dᵀ = (P (H + K Kᵀ) + L2 I)⁻¹ P K Rᵀ, float64."""
    W, P = np.asarray(base, dtype=np.float64), np.asarray(projector, dtype=np.float64)
    history = np.zeros_like(P)
    for K, V in ((np.asarray(k, dtype=np.float64), np.asarray(v, dtype=np.float64)) for k, v in batches):
        history = history + K @ K.T
        W = W + np.linalg.solve(P @ history + l2 * np.eye(len(P)), P @ K @ (V - W @ K).T).T
    return tensor(W)


def latest(base: Any, penalty: Any, batches: list[tuple[Any, Any]]) -> torch.Tensor:
    """Memorize-the-Latest with the full normal equations: D_t = (R_t K_tᵀ - D_total A)(A + K_t K_tᵀ)⁻¹."""
    start, A = long(base), long(penalty)
    W = start
    for K, V in ((long(k), long(v)) for k, v in batches):
        W = W + solve(A + K @ K.T, ((V - W @ K) @ K.T - (W - start) @ A).T).T
    return tensor(W)


def algorithm_one(
    base: Any, penalty: Any, batches: list[tuple[Any, Any]], restrict: Callable[[Array, Array], Array]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Algorithm 1 of Labyrinth with its E matrix, noise 1: the deployed weight, E, and the last restriction error."""
    W, C, E = long(base), long(penalty), np.zeros_like(long(base))
    error = E
    for K, V in ((long(k), long(v)) for k, v in batches):
        C = C + K @ K.T
        D = solve(C, ((V - W @ K) @ K.T - E).T).T
        allowed = restrict(D, W)
        error = allowed - D
        E, W = error @ C, W + allowed
    return tensor(W), tensor(E), tensor(error)


def uncompensated(
    base: Any, penalty: Any, batches: list[tuple[Any, Any]], restrict: Callable[[Array, Array], Array]
) -> torch.Tensor:
    """The paper's ablation: history, but no error is fed back."""
    W, C = long(base), long(penalty)
    for K, V in ((long(k), long(v)) for k, v in batches):
        C = C + K @ K.T
        W = W + restrict(solve(C, K @ (V - W @ K).T).T, W)
    return tensor(W)


def resolve(base: Any, penalty: Any, kept: tuple[Any, Any], old: tuple[Any, Any], new: tuple[Any, Any]) -> torch.Tensor:
    """Prop. 3.5 of Labyrinth by downdating: solve with the old pairs, then take them out and put the new ones in."""
    (K, V), (K_old, V_old), (K_new, V_new) = (tuple(map(long, pair)) for pair in (kept, old, new))
    C = long(penalty) + K @ K.T + K_old @ K_old.T
    W = long(base)
    W = W + solve(C, ((V - W @ K) @ K.T + (V_old - W @ K_old) @ K_old.T).T).T
    C = C + K_new @ K_new.T - K_old @ K_old.T
    return tensor(W + solve(C, ((V_new - W @ K_new) @ K_new.T - (V_old - W @ K_old) @ K_old.T).T).T)


def adopted(base: Any, prior: Any, noise: float, keys: Any, drift: Any) -> torch.Tensor:
    """W_b + G (I - Π) with Π = K (s I + Kᵀ Q K)⁻¹ Kᵀ Q written out as an n x n matrix."""
    W, Q, K, G = long(base), long(prior), long(keys), long(drift)
    gram = noise * np.eye(K.shape[1], dtype=LONG) + K.T @ Q @ K
    near_projector = K @ solve(gram, K.T @ Q)
    return tensor(W + G @ (np.eye(len(Q), dtype=LONG) - near_projector))


def rect(update: Any, reference: Any, fraction: float, epsilon: float = 1e-8) -> Array:
    """RECT entry by entry: sort the relative changes, keep the largest share, which is the decimal it is written as."""
    D, W = np.asarray(update), np.asarray(reference)
    scores = sorted(
        ((abs(D[i, j]) / (abs(W[i, j]) + epsilon), i, j) for i in range(D.shape[0]) for j in range(D.shape[1])),
        key=lambda item: item[0],
    )
    result = np.zeros_like(D)
    for _, i, j in scores[int(D.size * (1 - Fraction(str(fraction)))) :]:
        result[i, j] = D[i, j]
    return result


def prune(update: Any, reference: Any, base: float | None = None) -> torch.Tensor:
    """PRUNE value by value; base None is the linear variant."""
    left, values, right = np.linalg.svd(np.asarray(update, dtype=np.float64), full_matrices=False)
    limit = np.linalg.svd(np.asarray(reference, dtype=np.float64), compute_uv=False)[0]
    result = np.zeros_like(left @ right)
    for index, value in enumerate(values):
        if value > limit and base is None:
            value = (value + limit) / 2
        elif value > limit and base is not None:
            value = limit + np.log(value) / np.log(base) - np.log(limit) / np.log(base)
        result = result + value * np.outer(left[:, index], right[index])
    return tensor(result)
