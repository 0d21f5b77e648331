"""What the ledger accepts: ids that are distinct strings, tensors of the right shape that are finite.

Knows shapes and names for messages. Everything that passes comes out as the ledger's own float64 copy, so that nobody
else holds a handle on it.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from lightning_edit.errors import LedgerError


def check_ids(ids: Iterable[str]) -> list[str]:
    """Distinct strings, as a list.

    Args:
        ids: Ids of columns.

    Raises:
        LedgerError: One is not a string, or is given twice, or `ids` is itself a string.
    """
    names = [ids] if isinstance(ids, str) else list(ids)
    if isinstance(ids, str) or not all(isinstance(name, str) for name in names):
        raise LedgerError(f"Column ids are {ids!r}; expected a list of strings.")
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise LedgerError(f"Columns {twice} are given more than once; expected every id once.")
    return names


def check_matrix(name: str, value: Tensor, shape: Sequence[int], device: torch.device, copy: bool = True) -> Tensor:
    """A finite matrix of this shape in float64, row-major, on this device.

    Args:
        name: What to call it in the message.
        value: The matrix.
        shape: What its shape must be.
        device: Where it is wanted.
        copy: Whether it has to be a copy; what is only read now need not.

    Raises:
        LedgerError: It has another shape, or is not finite.
    """
    if tuple(value.shape) != tuple(shape):
        raise LedgerError(f"The {name} has shape {tuple(value.shape)}; expected {tuple(shape)}.")
    own = value.detach().to(device, torch.float64, copy=copy, memory_format=torch.contiguous_format).contiguous()
    finite = torch.isfinite(own)
    if not bool(finite.all()):
        row, column = (~finite).nonzero()[0].tolist()
        raise LedgerError(
            f"The {name} has {int((~finite).sum())} entries that are not finite (first at row {row}, column {column}); "
            "expected finite entries. Nothing was changed."
        )
    return own


def check_columns(ids: Sequence[str], keys: Tensor, values: Tensor, base: Tensor) -> tuple[Tensor, Tensor]:
    """Float64 copies of the keys (n, m) and values (d, m) of some columns.

    Args:
        ids: The m ids.
        keys: K.
        values: V.
        base: W_b (d, n), for shapes and device.

    Raises:
        LedgerError: A shape does not fit, or an entry is not finite.
    """
    rows, inner = base.shape
    own_keys = check_matrix("matrix of keys", keys, (inner, len(ids)), base.device)
    return own_keys, check_matrix("matrix of values", values, (rows, len(ids)), base.device)
