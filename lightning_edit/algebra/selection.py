"""The k-th smallest of many non-negative numbers, without sorting them.

The bits of a non-negative float64, read as an integer, are in the order of the numbers. So one histogram over their
leading bits says in which of 65,536 buckets the k-th smallest lies, and a second look at that bucket alone finds it.
Exact: no sampling. Knows numbers; refuses to know what they measure.
"""

import torch
from torch import Tensor

_SHIFT = 47  # of the 63 bits below the sign: the exponent's 11 and 5 of the fraction are left
_CHUNK = 1 << 18  # entries counted at a time: 2 MB, which stays in a cache


def kth_smallest(numbers: Tensor, k: int) -> Tensor:
    """The k-th smallest entry, counted from 0: `numbers.flatten().sort().values[k]`, in two passes.

    Args:
        numbers: Non-negative numbers of any shape, float64, none of them nan.
        k: From 0 to one less than their number.

    Returns:
        A tensor without dimensions.
    """
    flat = numbers.flatten()
    bits = flat.view(torch.int64)
    counts = bits.new_zeros(1 << (63 - _SHIFT))
    for part in bits.split(_CHUNK):
        counts += torch.bincount(part >> _SHIFT, minlength=len(counts))
    up_to = counts.cumsum(0)
    bucket = torch.searchsorted(up_to, k, right=True)
    below = int(up_to[bucket] - counts[bucket])
    inside = [part[part.view(torch.int64) >> _SHIFT == bucket] for part in flat.split(_CHUNK)]
    return torch.cat(inside).kthvalue(k - below + 1).values
