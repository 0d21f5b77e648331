"""Triangles of square matrices: packing them, factoring them, and saying what rank they have.

Knows float64 tensors and LAPACK. Refuses to know what the matrices mean, and never mends one: a matrix that is not
positive definite is reported as such, because adding a ridge changes the problem that the caller is solving.
"""

import torch
from torch import Tensor

EPS = torch.finfo(torch.float64).eps


def pack_triangle(lower: Tensor) -> Tensor:
    """Pack the lower triangle of a square matrix row by row (of a symmetric one: the upper triangle by columns).

    Args:
        lower: Matrix (n, n); what stands above the diagonal is ignored.

    Returns:
        Vector (n (n + 1) / 2,) that [`unpack_triangle`][lightning_edit.algebra.triangles.unpack_triangle] reads.
    """
    size = lower.shape[0]
    packed = lower.new_empty(size * (size + 1) // 2)
    start = 0
    for row in range(size):
        packed[start : start + row + 1] = lower[row, : row + 1]
        start += row + 1
    return packed


def unpack_triangle(packed: Tensor, size: int) -> Tensor:
    """Undo `pack_triangle`: a lower triangular matrix (n, n) with zeros above the diagonal.

    Args:
        packed: Vector (n (n + 1) / 2,).
        size: n.
    """
    lower = packed.new_zeros(size, size)
    start = 0
    for row in range(size):
        lower[row, : row + 1] = packed[start : start + row + 1]
        start += row + 1
    return lower


def symmetric_from_lower(lower: Tensor) -> Tensor:
    """Mirror the lower triangle of a matrix (n, n) into its upper triangle, exactly.

    Args:
        lower: Matrix (n, n); what stands above the diagonal is ignored.
    """
    return lower.tril() + lower.tril(-1).mT


def cholesky(matrix: Tensor) -> Tensor | None:
    """Factor a symmetric matrix as L Lᵀ, reading its lower triangle only.

    Args:
        matrix: Matrix (n, n).

    Returns:
        The lower factor in row-major memory (so that a saved and reloaded factor takes the same path through BLAS and
        gives the same bits), or None where the matrix is not positive definite or not finite.
    """
    lower: Tensor
    lower, info = torch.linalg.cholesky_ex(matrix)
    if int(info) != 0 or not bool(torch.isfinite(lower.diagonal()).all()):
        return None
    return lower.contiguous()


def solve_right(rows: Tensor, lower: Tensor) -> Tensor:
    """Compute X (L Lᵀ)⁻¹.

    Args:
        rows: X (m, n).
        lower: L (n, n).
    """
    half = torch.linalg.solve_triangular(lower.mT, rows, upper=True, left=False)  # X L⁻ᵀ
    solved: Tensor = torch.linalg.solve_triangular(lower, half, upper=False, left=False)
    return solved


def numerical_rank(moment: Tensor) -> int:
    """Rank of a positive semi-definite matrix after scaling its diagonal to one.

    The scaling makes the answer independent of the units' scales (an FFN has units that fire a thousand times more
    strongly than others): it is the rank of the correlation matrix, counted above rounding.

    Args:
        moment: Symmetric matrix (n, n).
    """
    diagonal = moment.diagonal()
    alive = diagonal > 0
    scale = diagonal[alive].rsqrt()
    correlation = moment[alive][:, alive] * scale[:, None] * scale[None, :]  # (a, a), ones on the diagonal
    if correlation.shape[0] == 0:
        return 0
    values = torch.linalg.eigvalsh(correlation)
    return int((values > max(rounding_level(moment.shape[0]), 4 * EPS * float(values[-1]))).sum())


def rounding_level(size: int) -> float:
    """Size below which an eigenvalue of an n x n correlation matrix is indistinguishable from rounding, 8 ε √n.

    Args:
        size: n.
    """
    return float(8 * EPS * size**0.5)


def smallest_correlation_eigenvalue(lower: Tensor, diagonal: Tensor) -> float:
    """Estimate from above the smallest eigenvalue of D^(-1/2) L Lᵀ D^(-1/2) by inverse iteration.

    A Cholesky factorisation of a singular matrix often succeeds by rounding luck; a few triangular solves tell, at a
    cost of n² each where a full set of eigenvalues takes n³.

    Args:
        lower: L (n, n).
        diagonal: Diagonal D (n,) of L Lᵀ.
    """
    scale = diagonal.sqrt()[:, None]  # (n, 1)
    start = torch.randn(lower.shape[0], 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    block = start.to(lower.device)
    estimate = float("inf")
    for _ in range(8):
        block = block / block.norm(dim=0)
        half = torch.linalg.solve_triangular(lower, scale * block, upper=False)
        block = scale * torch.linalg.solve_triangular(lower.mT, half, upper=True)
        estimate = min(estimate, 1 / float(block.norm(dim=0).max()))
    return estimate
