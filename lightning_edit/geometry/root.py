r"""A centred square root of hidden representations, in one pass.

Knows rows of numbers. Refuses to know where they came from. What is kept is the triangular factor of a QR decomposition
of the rows with a column of ones in front,

$$[\mathbf{1}, H - \mathbf{1} s^\top] = Q \begin{pmatrix} \sqrt n & \sqrt n (\mu - s)^\top \\ 0 & R \end{pmatrix},$$

where R is the factor of the rows centred per feature, $R^\top R = \sum_i (h_i - \mu)(h_i - \mu)^\top$. Summing squares
instead would lose every singular value below $\sqrt\epsilon\,\sigma_1$; here the loss begins at $\epsilon\,\sigma_1$,
which is what makes a statement about the smallest ones possible. The shift s, one of the rows, keeps a large mean from
drowning small deviations.

A root is one float64 tensor (d + 2, d + 1), so that it can be a state that is copied, saved and merged as a whole: the
first row holds the count and s, the others the triangle.
"""

import torch
from torch import Tensor

from lightning_edit.errors import GeometryError


def empty_root(size: int, device: torch.device | str = "cpu") -> Tensor:
    """A root of no rows (d + 2, d + 1).

    Args:
        size: d, the number of features.
        device: Where it lives.
    """
    if size < 1:
        raise GeometryError(f"A representation needs at least one feature; size is {size}.")
    return torch.zeros(size + 2, size + 1, dtype=torch.float64, device=device)


def add_rows(root: Tensor, rows: Tensor) -> Tensor:
    """The root with more rows; the one that was given is left alone.

    The cost is that of a QR decomposition of d + m rows, so m should not be much smaller than d.

    Args:
        root: A root (d + 2, d + 1).
        rows: Representations (m, d), checked by `checked_rows`.
    """
    if len(rows) == 0:
        return root
    exact = rows.to(root.device, torch.float64)
    shift = root[0, 1:] if row_count(root) else exact[0]
    triangle = _triangle(torch.cat([root[1:], torch.cat([exact.new_ones(len(exact), 1), exact - shift], dim=1)]))
    return _packed(row_count(root) + len(exact), shift, triangle)


def merge_roots(roots: Tensor) -> Tensor:
    """One root of all rows that several have seen.

    Another shift changes only the first row of a triangle, so roots with different shifts are brought to one exactly.

    Args:
        roots: Roots (m, d + 2, d + 1), empty ones among them.
    """
    seen = [root for root in roots if row_count(root)]
    if len(seen) < 2:
        return seen[0] if seen else roots[0]
    shift = seen[0][0, 1:]
    triangles = []
    for root in seen:
        triangle = root[1:].clone()
        triangle[0, 1:] += triangle[0, 0] * (root[0, 1:] - shift)
        triangles.append(triangle)
    return _packed(sum(map(row_count, seen)), shift, _triangle(torch.cat(triangles)))


def row_count(root: Tensor) -> int:
    """Number of rows n.

    Args:
        root: A root (d + 2, d + 1).
    """
    return int(root[0, 0])


def row_mean(root: Tensor) -> Tensor:
    """Mean of the rows (d,).

    Args:
        root: A root (d + 2, d + 1) of at least one row.
    """
    _require_rows(root)
    return root[0, 1:] + root[1, 1:] / root[1, 0]


def centred_factor(root: Tensor) -> Tensor:
    """R (d, d), upper triangular, with RᵀR the scatter of the rows about their mean.

    Args:
        root: A root (d + 2, d + 1) of at least one row.
    """
    _require_rows(root)
    return root[2:, 1:]


def checked_rows(rows: Tensor, size: int) -> Tensor:
    """Representations as rows (m, d), detached.

    Args:
        rows: Representations (..., d) of any floating type.
        size: d.

    Raises:
        GeometryError: The last dimension is not d, or an entry is not finite.
    """
    if rows.ndim < 1 or rows.shape[-1] != size or not rows.is_floating_point():
        raise GeometryError(
            f"Found representations of shape {tuple(rows.shape)} and type {rows.dtype}; expected (..., {size}), "
            "floating."
        )
    flat = rows.detach().reshape(-1, size)
    if not bool(torch.isfinite(flat).all()):
        bad = int((~torch.isfinite(flat).all(dim=1)).sum())
        raise GeometryError(
            f"{bad} of {len(flat)} representations are not finite; expected finite ones. The model overflows on this "
            "text: read it in float32 or bfloat16, or leave the text out."
        )
    return flat


def _triangle(rows: Tensor) -> Tensor:
    """The square triangular factor of at least as many rows as columns."""
    factor: Tensor = torch.linalg.qr(rows, mode="r").R
    return factor


def _packed(count: int, shift: Tensor, triangle: Tensor) -> Tensor:
    head = torch.cat([shift.new_full((1,), float(count)), shift])
    return torch.cat([head[None], triangle])


def _require_rows(root: Tensor) -> None:
    if row_count(root) == 0:
        raise GeometryError("No representation has been seen; expected at least one. Call update() with some first.")
