"""A Cholesky factor that grows: append columns to a Gram matrix, truncate it, and name the columns that collide.

Knows lower triangular factors of s I + Zᵀ Z. Refuses to know what the columns are (it is told their names only to put
them into a message), and never touches a tensor that it was given: every function returns new ones.
"""

import torch
from torch import Tensor

from lightning_edit.errors import LedgerError

COLLISION = 1e-12  # share of a column that the others leave unexplained, below which interpolation is meaningless
REACH = 1e-10  # share of a key's length inside the prior's range, below which it is rounding


def append(lower: Tensor, old: Tensor, new: Tensor, noise: float, ids: list[str]) -> Tensor:
    r"""Factor of s I + [Z, Z']ᵀ [Z, Z'] from the factor L of s I + Zᵀ Z.

    $$\begin{pmatrix} L & 0 \\ X & T \end{pmatrix}, \quad X L^\top = Z'^\top Z, \quad
    T T^\top = s I + Z'^\top Z' - X X^\top$$

    Args:
        lower: L (N, N).
        old: Z (n, N).
        new: Z' (n, m).
        noise: s.
        ids: Names of all N + m columns, for messages.

    Returns:
        The factor (N + m, N + m).

    Raises:
        LedgerError: The new Gram matrix is singular or not finite.
    """
    count, more = lower.shape[0], new.shape[1]
    cross = torch.linalg.solve_triangular(lower, old.mT @ new, upper=False).mT  # X (m, N)
    gram = new.mT @ new
    gram.diagonal().add_(noise)
    corner, info = torch.linalg.cholesky_ex(gram - cross @ cross.mT)
    failed = _first_failure(corner.diagonal(), int(info), gram.diagonal(), noise)
    if failed is not None:
        raise _singular(torch.cat([old, new[:, : failed + 1]], dim=1), noise, ids)
    grown = lower.new_zeros(count + more, count + more)
    grown[:count, :count] = lower
    grown[count:, :count] = cross
    grown[count:, count:] = corner
    return grown


def check_reach(reached: Tensor, keys: Tensor, ids: list[str]) -> None:
    """Raise when an update can do nothing about some key, so that no value can be met exactly there.

    A Gram matrix does not show it: what rounding leaves of such a key in the prior's range looks like a short column.

    Args:
        reached: Keys projected onto the prior's range (n, m).
        keys: The keys (n, m).
        ids: Names of the m columns, for the message.

    Raises:
        LedgerError: A key is zero, or has no part in the prior's range.
    """
    lost = (reached.norm(dim=0) <= REACH * keys.norm(dim=0)).nonzero().flatten().tolist()
    if lost:
        names = ", ".join([repr(ids[index]) for index in lost[:8]] + ["..."] * (len(lost) > 8))
        raise LedgerError(
            f"With noise 0 every value is met exactly, but the keys of columns {names} are zero or have no part in the "
            "prior's range, where no update reaches them. Expected keys within its range: use a larger null space, "
            "another prior, or a noise > 0."
        )


def truncate(lower: Tensor, count: int) -> Tensor:
    """Factor of the first columns alone, exactly: the leading block.

    Args:
        lower: L (N, N).
        count: How many columns stay.
    """
    return lower[:count, :count].clone(memory_format=torch.contiguous_format)


def explaining(columns: Tensor) -> list[int]:
    """Which columns the last one is a combination of.

    Args:
        columns: Z (n, N); all but the last are independent.

    Returns:
        Indices of the columns with a notable share in it, then its own.
    """
    scaled = columns / columns.norm(dim=0).clamp(min=torch.finfo(columns.dtype).tiny)
    last = columns.shape[1] - 1
    if last == 0:
        return [0]
    shares = torch.linalg.lstsq(scaled[:, :last], scaled[:, last:]).solution[:, 0].abs()
    return [*(shares > max(0.1 * float(shares.max()), 1e-6)).nonzero().flatten().tolist(), last]


def _first_failure(pivots: Tensor, info: int, gram: Tensor, noise: float) -> int | None:
    """Index of the first column that cannot be told from those before it; None when all can."""
    limit = info - 1 if info > 0 else len(pivots)
    floor = COLLISION * gram[:limit] if noise == 0 else 0 * gram[:limit]
    sound = (pivots[:limit] ** 2 > floor) & torch.isfinite(pivots[:limit])
    if not bool(sound.all()):
        return int((~sound).nonzero()[0])
    return limit if info > 0 else None


def _singular(columns: Tensor, noise: float, ids: list[str]) -> LedgerError:
    """The error for a Gram matrix that cannot be factored because of its last column."""
    name = ids[columns.shape[1] - 1]
    if noise > 0 or not bool(torch.isfinite(columns).all()):
        return LedgerError(
            f"The Gram matrix of the keys cannot be factored at column {name!r}: its longest column has length "
            f"{float(columns.norm(dim=0).max()):.3g} in the prior's metric beside a noise of {noise:g}. Expected "
            "finite keys of comparable size; check the keys, or give the prior more weight."
        )
    blamed = [repr(ids[index]) for index in explaining(columns)]
    names = ", ".join(blamed if len(blamed) <= 8 else [*blamed[:7], "...", blamed[-1]])
    return LedgerError(
        f"With noise 0 every value is met exactly, which needs independent keys; the keys of columns {names} collide: "
        f"the last is a combination of the others. Let requests with one key share a column, drop one of them, or use "
        "a noise > 0."
    )
