"""A ledger at rest: its columns and its factor, without what follows from them.

A working ledger keeps F K and Q K beside K, so that Q is applied to a key once in its life. At rest that is two thirds
of its memory. Packed, it keeps K and V in float32 where that loses nothing, and the triangle of the factor; F K and Q K
are made again from K and the prior when the ledger is worked on.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_edit.algebra.gram import GramForm
from lightning_edit.algebra.prior import Prior
from lightning_edit.algebra.snapshot import Snapshot
from lightning_edit.algebra.triangles import pack_triangle, unpack_triangle


@dataclass(frozen=True, slots=True)
class Packed:
    """A ledger in Gram form at one moment, packed.

    Args:
        base: W_b (d, n), float32 or float64.
        prior: Q.
        noise: s.
        ids: Ids of the N active columns.
        keys: K (n, N), in float32 if all entries are numbers of float32, else in float64.
        values: V (d, N), likewise.
        lower: The factor's triangle (N (N + 1) / 2,), float64.
    """

    base: Tensor
    prior: Prior
    noise: float
    ids: tuple[str, ...]
    keys: Tensor
    values: Tensor
    lower: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of keys, values and factor."""
        return self.keys.nbytes + self.values.nbytes + self.lower.nbytes

    def unpack(self) -> Snapshot:
        """The ledger as it is worked on."""
        keys, values = self.keys.double(), self.values.double()
        form = GramForm.around(self.prior, self.noise, keys, unpack_triangle(self.lower, len(self.ids)))
        return Snapshot(self.base, self.prior, self.noise, self.ids, keys, values, form)


Kept = Snapshot | Packed


def pack(kept: Kept) -> Kept:
    """A ledger at rest; one in primal form or with a solution that is no closed form stays as it is.

    Args:
        kept: The ledger.
    """
    if isinstance(kept, Packed) or not isinstance(kept.form, GramForm) or kept.solved is not None:
        return kept
    keys, values = _short(kept.keys), _short(kept.values)
    return Packed(kept.base, kept.prior, kept.noise, kept.ids, keys, values, pack_triangle(kept.form.lower))


def unpack(kept: Kept) -> Snapshot:
    """A ledger to work on.

    Args:
        kept: It, packed or not.
    """
    return kept.unpack() if isinstance(kept, Packed) else kept


def _short(matrix: Tensor) -> Tensor:
    """A matrix in float32 where that loses nothing."""
    short = matrix.float()
    return short if torch.equal(short.double(), matrix) else matrix
