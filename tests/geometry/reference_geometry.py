"""The geometry once more, slowly: what the papers write, sample by sample and direction by direction, in float64.

Knows numpy only and nothing of the package. Where a decomposition is needed it is numpy's, of the whole centred matrix.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def double(values: Any) -> Array:
    return np.asarray(values, dtype=np.float64)


def centred(rows: Any) -> Array:
    """H (d, n), each feature without its mean over the samples."""
    known = double(rows)
    result = np.zeros((known.shape[1], known.shape[0]))
    for j in range(known.shape[1]):
        mean = math.fsum(known[:, j]) / len(known)
        for i in range(len(known)):
            result[j, i] = known[i, j] - mean
    return result


def svd(rows: Any) -> tuple[Array, Array]:
    """U (d, d) and all d singular values of the centred representations."""
    matrix = centred(rows)
    u, s, _ = np.linalg.svd(matrix, full_matrices=True)
    return u, np.concatenate([s, np.zeros(len(matrix) - len(s))])


def floor(sigma: Array, n: int) -> float:
    return float(np.finfo(np.float64).eps * sigma[0] * max(n, len(sigma)))


def effective_rank(sigma: Any) -> float:
    total = math.fsum(sigma)
    entropy = 0.0
    for value in sigma:
        if value > 0:
            entropy -= value / total * math.log(value / total)
    return math.exp(entropy)


def relative_change(before: Any, after: Any, aggregation: str) -> Array:
    """R_k of Definition 4.4, for the directions above the floor."""
    u, sigma = svd(before)
    n, low = len(before), floor(sigma, len(before))
    old, new = double(before), double(after)
    result = []
    for k in range(len(sigma)):
        if sigma[k] <= low:
            continue
        c = [sum(u[j, k] * (new[i, j] - old[i, j]) for j in range(len(sigma))) for i in range(n)]
        if aggregation == "mean_abs":
            size = math.fsum(abs(value) for value in c) / n
        else:
            size = math.sqrt(math.fsum(value**2 for value in c) / n)
        result.append(math.sqrt(n) * size / sigma[k])
    return np.array(result)


def quantile(values: Any, q: float) -> float:
    """Linear interpolation between the two neighbours in order."""
    ordered = sorted(float(value) for value in values)
    place = q * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def trimmed_mean(values: Any, share: float) -> float:
    ordered = sorted(float(value) for value in values)
    cut = int(share * len(ordered))
    kept = ordered[cut : len(ordered) - cut]
    return math.fsum(kept) / len(kept)


def norms(before: Any, after: Any) -> dict[str, float]:
    lengths = [math.sqrt(math.fsum(x**2 for x in row)) for row in double(after) - double(before)]
    mean = math.fsum(lengths) / len(lengths)
    spread = math.sqrt(math.fsum((x - mean) ** 2 for x in lengths) / len(lengths))
    return {"mean": mean, "std": spread, "min": min(lengths), "max": max(lengths)}


def cosines(before: Any, after: Any, k: int) -> Array:
    """Cosines of the principal angles, through the definition: maximise over unit vectors, deflate, repeat."""
    left, right = svd(before)[0][:, :k], svd(after)[0][:, :k]
    found = []
    for _ in range(k):
        values, vectors = np.linalg.eigh(left.T @ right @ right.T @ left)
        cosine = math.sqrt(max(values[-1], 0.0))
        found.append(cosine)
        p = left @ vectors[:, -1]
        q = right @ (right.T @ p)
        left = _without(left, p)
        right = _without(right, q / max(float(np.linalg.norm(q)), 1e-300))
    return np.array(found)


def _without(basis: Array, direction: Array) -> Array:
    """An orthonormal basis of what is left of a subspace when one of its directions is taken out."""
    rest = basis - np.outer(direction, direction @ basis)
    u, s, _ = np.linalg.svd(rest, full_matrices=False)
    return u[:, : max(int((s > 1e-6).sum()), 0)]


def ranks(values: Any) -> list[float]:
    result = []
    for value in values:
        below = sum(other < value for other in values)
        equal = sum(other == value for other in values)
        result.append(below + (equal + 1) / 2)
    return result


def spearman(x: Any, y: Any) -> float:
    a, b = ranks(x), ranks(y)
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    top = sum((i - mean_a) * (j - mean_b) for i, j in zip(a, b, strict=True))
    return top / math.sqrt(sum((i - mean_a) ** 2 for i in a) * sum((j - mean_b) ** 2 for j in b))


def student_two_sided(t: float, degrees: int, points: int = 20001) -> float:
    """P(|T| > |t|) by Simpson's rule over the middle, after x = sqrt(degrees) tan(angle)."""
    edge = math.atan(abs(t) / math.sqrt(degrees))
    constant = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(math.pi)
    step = edge / (points - 1)
    total = 0.0
    for i in range(points):
        weight = 1 if i in (0, points - 1) else 4 if i % 2 else 2
        total += weight * math.cos(i * step) ** (degrees - 1)
    return 1 - 2 * constant * total * step / 3


def ffn_change(
    phi: Callable[[float], float], slope: Callable[[float], float], weight: Any, update: Any, inputs: Any
) -> tuple[Array, Array]:
    """Eq. 7 and Eq. 8, entry by entry."""
    w, dw, x = double(weight), double(update), double(inputs)
    measured, predicted = np.zeros((len(x), len(w))), np.zeros((len(x), len(w)))
    for i, j in itertools.product(range(len(x)), range(len(w))):
        a, da = float(w[j] @ x[i]), float(dw[j] @ x[i])
        measured[i, j] = phi(a + da) - phi(a)
        predicted[i, j] = slope(a) * da
    return measured, predicted


def sensitive_update(directions: Any, weights: Any, precision: Any, noise: float, keys: Any, residual: Any) -> Array:
    """The minimiser of the weighted objective from its normal equations, as one system of d n unknowns."""
    u, w, q, k, r = (double(part) for part in (directions, weights, precision, keys, residual))
    d, n = len(u), len(q)
    output = u @ np.diag(w) @ u.T  # (d, d)
    system, right = np.zeros((d * n, d * n)), np.zeros(d * n)
    gram, target = k @ k.T / noise, r @ k.T / noise  # gradient: A D Q⁻¹ + D K Kᵀ / s = R Kᵀ / s
    for i, j in itertools.product(range(d), range(n)):
        right[i * n + j] = target[i, j]
        for a, b in itertools.product(range(d), range(n)):
            system[i * n + j, a * n + b] = output[i, a] * q[b, j] + (gram[b, j] if i == a else 0.0)
    return np.linalg.solve(system, right).reshape(d, n)
