r"""The upper end of a matrix's spectrum, without decomposing all of it.

A block Krylov space of the matrix D (d x n) holds the singular vectors of its largest values long before it holds the
others: with an orthonormal basis Q of span{D X, (D Dᵀ) D X, ...}, the product Q (Qᵀ D) of two thin factors has the
same upper spectrum, and its SVD is a QR of each factor and an SVD of a small square. A matrix of low rank is exhausted
after a few blocks. Every triplet is accepted by its residual; where the space does not converge (a flat spectrum, many
equal values), the whole matrix is decomposed after all. The starting block is fixed, so results repeat.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_DENSE = 192  # up to this size a full decomposition is cheaper than a space
_BLOCK = 12
_LANCZOS, _LANCZOS_LOOK = 400, 20  # vectors of a Lanczos iteration at most; how often its values are looked at
_LARGEST = 600  # columns of a space at most
_LOOKS = frozenset({1, 2, 3, 4, 6, 8, 11, 14, 18, 23, 29, 36, 45})  # after how many blocks the spectrum is looked at
_TOLERANCE = 1e-12  # residual of an accepted triplet, relative to the largest value
_FAR_BELOW = 1e-3  # below this share of the largest value a triplet has to wait


@dataclass(frozen=True, slots=True)
class Triplets:
    """Part of a singular value decomposition, largest values first.

    Args:
        left: U (d, k).
        values: s (k,).
        right: Vᵀ (k, n).
    """

    left: Tensor
    values: Tensor
    right: Tensor


def svd_of_product(left: Tensor, right: Tensor) -> Triplets:
    """The SVD of A Bᵀ from the QR of both thin factors and the SVD of a k x k matrix.

    Args:
        left: A (d, k).
        right: B (n, k).
    """
    (outer, upper), (inner, lower) = torch.linalg.qr(left), torch.linalg.qr(right)
    middle, values, across = torch.linalg.svd(upper @ lower.mT)
    return Triplets(outer @ middle, values, across @ inner.mT)


def largest_singular_value(matrix: Tensor) -> Tensor:
    """The largest singular value (no dimensions): the root of the largest eigenvalue of D Dᵀ, to 1e-10 relative.

    Squaring costs the small values their digits and the largest one none. What is left of the work is one product and
    a Lanczos iteration of one vector on the smaller side.

    Args:
        matrix: D (d, n), float64.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT
    scale = wide.abs().max()  # so that squares neither vanish nor overflow
    if not float(scale) > 0:
        return scale
    wide = wide / scale
    gram = wide @ wide.mT
    value = _largest_eigenvalue(gram) if gram.shape[0] > _DENSE else None
    if value is None:
        value = torch.linalg.eigvalsh(gram)[-1]
    return scale * value.clamp_min(0).sqrt()


def _largest_eigenvalue(gram: Tensor) -> Tensor | None:
    """The largest eigenvalue of a positive semi-definite matrix (d, d), None where Lanczos does not settle on it.

    A Ritz value lies below an eigenvalue by at most r² / g, with r its residual and g its distance from the next one.
    """
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(gram.shape[0], generator=generator, dtype=gram.dtype).to(gram.device)
    basis = (vector / vector.norm())[:, None]
    diagonal, beside = [], []  # of the tridiagonal matrix that the basis sees
    for step in range(1, min(gram.shape[0], _LANCZOS)):
        image = gram @ basis[:, -1]
        diagonal.append(basis[:, -1] @ image)
        for _ in range(2):  # against all vectors, twice: the iteration forgets them in rounding
            image = image - basis @ (basis.mT @ image)
        beside.append(image.norm())
        if step % _LANCZOS_LOOK == 0 or float(beside[-1]) == 0:
            couple = torch.stack(beside[:-1]) if step > 1 else image[:0]
            seen = torch.diag(torch.stack(diagonal)) + torch.diag(couple, 1) + torch.diag(couple, -1)
            values, vectors = torch.linalg.eigh(seen)
            residual = beside[-1] * vectors[-1].abs()  # of each Ritz pair
            gap = values[-1] - values[-2] - residual[-2] if step > 1 else values[-1]
            if float(residual[-1]) == 0 or float(residual[-1] ** 2) <= 1e-11 * float(values[-1] * gap):
                largest: Tensor = values[-1]
                return largest
        basis = torch.cat([basis, (image / beside[-1])[:, None]], dim=1)
    return None


def triplets_above(matrix: Tensor, limit: Tensor) -> Triplets:
    """All singular triplets with a value above a limit.

    Args:
        matrix: D (d, n), float64.
        limit: A number (no dimensions).
    """
    if matrix.shape[0] > matrix.shape[1]:
        found = triplets_above(matrix.mT, limit)
        return Triplets(found.right.mT, found.values, found.left.mT)
    parts, rest = [_none_of(matrix)], matrix
    while True:  # a space may miss some of several equal values, so what is left is looked at again
        part = _some_above(rest, limit) if matrix.shape[0] > _DENSE else None
        if part is None:
            left, values, right = torch.linalg.svd(rest, full_matrices=False)
            above = values > limit
            parts.append(Triplets(left[:, above], values[above], right[above]))
            break
        if not len(part.values):
            break
        parts.append(part)
        rest = rest - (part.left * part.values) @ part.right
    values, order = torch.cat([part.values for part in parts]).sort(descending=True)
    left, right = torch.cat([part.left for part in parts], dim=1), torch.cat([part.right for part in parts])
    return Triplets(left[:, order], values, right[order])


@dataclass(frozen=True, slots=True)
class _Space:
    """What a Krylov space says about the spectrum.

    Args:
        triplets: Singular triplets of the matrix's projection onto the space.
        residuals: ‖D v - s u‖ of each; Dᵀ u = s v holds by construction.
    """

    triplets: Triplets
    residuals: Tensor


def _some_above(matrix: Tensor, limit: Tensor) -> Triplets | None:
    """Triplets above a limit, none where there are none, None where the spaces do not say.

    Triplets far below the largest one are left for another look, when the largest have been taken off: their residuals
    drown in its rounding.
    """
    if float(matrix.norm()) <= float(limit):  # the Frobenius norm bounds the largest singular value
        return _none_of(matrix)
    for space in _spaces(matrix):
        found, top = space.triplets, float(space.triplets.values[0])
        wanted = found.values > max(float(limit), _FAR_BELOW * top)
        if not bool((found.values > limit).any()):
            slack = float(space.residuals[0])
            if slack <= 1e-3 * top and top + slack <= float(limit):
                return _none_of(matrix)
        elif not bool(wanted.all()) and bool((space.residuals[wanted] <= _TOLERANCE * top).all()):
            return Triplets(found.left[:, wanted], found.values[wanted], found.right[wanted])
    return None


def _spaces(matrix: Tensor) -> Iterator[_Space]:
    """Growing Krylov spaces of a wide matrix; they end where a full decomposition is cheaper."""
    start = torch.randn(matrix.shape[1], _BLOCK, generator=torch.Generator().manual_seed(0), dtype=matrix.dtype)
    block = torch.linalg.qr(matrix @ start.to(matrix.device)).Q
    basis, images = block, matrix.mT @ block  # Q (d, k), Dᵀ Q (n, k)
    blocks = 1
    while basis.shape[1] + _BLOCK <= min(matrix.shape[0] // 2, _LARGEST):
        following = matrix @ images[:, -_BLOCK:]
        following = following - basis @ (basis.mT @ following)
        block, outside = torch.linalg.qr(following - basis @ (basis.mT @ following))
        if blocks in _LOOKS:
            yield _look(basis, images, outside)
        block = torch.linalg.qr(block - basis @ (basis.mT @ block)).Q  # what is left may have been rounding only
        basis, images = torch.cat([basis, block], dim=1), torch.cat([images, matrix.mT @ block], dim=1)
        blocks += 1


def _look(basis: Tensor, images: Tensor, outside: Tensor) -> _Space:
    """Rayleigh and Ritz: the triplets of Q (Dᵀ Q)ᵀ, and by how much the next block leaves the space."""
    found = svd_of_product(basis, images)
    last = basis[:, -_BLOCK:].mT @ found.left  # (b, k)
    tiny = torch.finfo(found.values.dtype).tiny
    return _Space(found, (outside @ last).norm(dim=0) / found.values.clamp_min(tiny))


def _none_of(matrix: Tensor) -> Triplets:
    """No triplets of a matrix."""
    return Triplets(matrix[:, :0], matrix[0, :0], matrix[:0])
