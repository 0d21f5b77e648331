r"""Stability of principal subspaces: how far the first k directions have turned.

$$\cos \theta_1 \ge \dots \ge \cos \theta_k: \quad \text{singular values of } U_k^\top U_k'$$

(*Revisiting*, Appendix B.3). The smallest cosine, of the largest principal angle, is what the columns of Tables 13 to
20 show; one lost direction is enough to bring it to zero, so the mean and all of them stand beside it. Knows two
spectra.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_edit.errors import GeometryError
from lightning_edit.geometry.spectrum import Spectrum

SIZES = (10, 50, 100, 200, 500, 1000, 2000)
"""The subspaces of Appendix B.3."""


def principal_cosines(before: Spectrum, after: Spectrum, k: int) -> Tensor:
    """Cosines of the principal angles between the first k directions of two spectra (k,), largest first.

    Args:
        before: One spectrum.
        after: The other, of representations with as many features.
        k: Size of the subspaces, 2 k <= d: larger ones share directions whatever they are.

    Raises:
        GeometryError: The sizes differ, or k is too large for d or for the number of directions above the floor.
    """
    if before.size != after.size:
        raise GeometryError(f"Found spectra of {before.size} and {after.size} features; expected the same.")
    if not 1 <= 2 * k <= before.size:
        raise GeometryError(f"Found k={k} for d={before.size}; expected 1 <= k and 2 k <= d.")
    rank = min(before.rank, after.rank)
    if k > rank:
        raise GeometryError(
            f"Found k={k} and {rank} directions above the floor; those below it point anywhere. Use a smaller k, or "
            "more samples."
        )
    cosines: Tensor = torch.linalg.svdvals(before.directions[:, :k].mT @ after.directions[:, :k])
    return cosines.clamp(max=1.0)


def usable_sizes(before: Spectrum, after: Spectrum, sizes: Sequence[int] = SIZES) -> list[int]:
    """Those of some subspace sizes that two spectra can be compared in.

    Args:
        before: One spectrum.
        after: The other.
        sizes: Candidates for k.
    """
    limit = min(before.size // 2, before.rank, after.rank)
    return [k for k in sizes if 1 <= k <= limit]


def gap(spectrum: Spectrum, k: int) -> float:
    """Relative gap below the first k singular values, (sigma_k - sigma_{k+1}) / sigma_k.

    A small gap lets directions k and k + 1 change places under the smallest change, and the smallest cosine with them
    (Davis and Kahan 1970): a small cosine at a small gap says little.

    Args:
        spectrum: A spectrum.
        k: Size of the subspace, below d.
    """
    if not 1 <= k < spectrum.size:
        raise GeometryError(f"Found k={k} for d={spectrum.size}; expected 1 <= k < d.")
    return float(1 - spectrum.sigma[k] / spectrum.sigma[k - 1])


def stability(before: Spectrum, after: Spectrum, sizes: Sequence[int] = SIZES) -> dict[str, float]:
    """Smallest and mean cosine of each subspace size that can be compared, and the gap that it hangs on.

    Args:
        before: The spectrum to compare with.
        after: The spectrum now.
        sizes: Candidates for k.
    """
    values = {}
    for k in usable_sizes(before, after, sizes):
        cosines = principal_cosines(before, after, k)
        values[f"cos_min_k{k}"] = float(cosines[-1])
        values[f"cos_mean_k{k}"] = float(cosines.mean())
        values[f"gap_k{k}"] = gap(before, k)
    return values
