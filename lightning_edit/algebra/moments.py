"""Streaming moments of keys: how often each direction of the key space is used by ordinary text.

Knows vectors. Refuses to know which model, layer or corpus they came from (`statistics_file` writes that down).
Everything is summed in float64, whatever the keys' own precision: float32 sums over millions of tokens lose the small
eigenvalues, which are the ones that decide where an edit may go.
"""

from typing import Any

import torch
from torch import Tensor

from lightning_edit.algebra.triangles import numerical_rank, pack_triangle, symmetric_from_lower, unpack_triangle
from lightning_edit.errors import StateError, StatisticsError

_CHUNK_BYTES = 32 << 20  # float64 copies of the keys are made this much at a time
_BLOCK = 512  # columns per block of the triangular product


class KeyCovariance:
    r"""Count, sum and second moment of keys, in one streaming pass.

    $$M = \frac{1}{T} \sum_{t=1}^{T} k_t k_t^\top, \qquad \mu = \frac{1}{T} \sum_{t=1}^{T} k_t$$

    M is the uncentred moment that ROME and MEMIT call the covariance of keys (Meng et al. 2022, 2023).

    Args:
        size: Length n of a key (the inner width of the FFN).
        device: Where the n x n sum lives; keys are brought there.

    Example:
        >>> covariance = KeyCovariance(2)
        >>> covariance.update(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
        >>> covariance.count, covariance.moment.tolist()
        (2, [[0.5, 0.0], [0.0, 2.0]])
    """

    def __init__(self, size: int, device: torch.device | str = "cpu") -> None:
        """Start empty."""
        if size < 1:
            raise StatisticsError(f"A key needs at least one entry; size is {size}.")
        self.size = size
        self._count = 0
        with torch.inference_mode(False):  # sums born in a validation loop must still be writable in training
            self._sum = torch.zeros(size, dtype=torch.float64, device=device)
            self._second = torch.zeros(size, size, dtype=torch.float64, device=device)  # lower triangle is meaningful

    @torch.no_grad()
    def update(self, keys: Tensor, mask: Tensor | None = None) -> None:
        """Add keys; nothing is added when any of them is not finite.

        Args:
            keys: Keys (..., n) of any floating type.
            mask: Which of them count (...): true for real tokens, false for padding.

        Raises:
            StatisticsError: The shapes do not fit, or a key that counts is not finite.
        """
        rows = self._select(keys, mask)  # (T, n)
        if not bool(torch.isfinite(rows).all()):
            bad = int((~torch.isfinite(rows).all(dim=1)).sum())
            raise StatisticsError(
                f"{bad} of {rows.shape[0]} keys are not finite; expected finite keys. The model overflows on this "
                "text: read it in float32 or bfloat16, or leave the text out."
            )
        step = max(64, _CHUNK_BYTES // (8 * self.size))
        for start in range(0, rows.shape[0], step):
            chunk = rows[start : start + step].to(self._second.device, torch.float64)
            self._accumulate(chunk)
        self._count += rows.shape[0]

    def merge(self, other: "KeyCovariance") -> None:
        """Add what another process or another shard of the corpus has seen.

        Args:
            other: Moments of keys of the same length.

        Raises:
            StatisticsError: The keys have another length.
        """
        if other.size != self.size:
            raise StatisticsError(
                f"Moments of keys of length {other.size} cannot be merged into moments of length {self.size}: "
                "merge the same layer of the same model."
            )
        self._second += other._second.to(self._second.device)
        self._sum += other._sum.to(self._sum.device)
        self._count += other._count

    @property
    def count(self) -> int:
        """Number of keys seen, T."""
        return self._count

    @property
    def moment(self) -> Tensor:
        """Second moment M (n, n), float64, exactly symmetric; a fresh tensor."""
        self._require_keys()
        return symmetric_from_lower(self._second) / self._count

    @property
    def mean(self) -> Tensor:
        """Mean key μ (n,), float64; a fresh tensor. Imported moments may lack it: the public code does not sum keys."""
        self._require_keys()
        if bool(self._sum.isnan().all()):
            raise StatisticsError(
                "These moments come without the mean key: the file they were imported from has only the second moment. "
                "Expected one with both. Collect the statistics with collect_statistics."
            )
        return self._sum / self._count

    def rank(self) -> int:
        """Numerical rank of M, counted on its correlation matrix."""
        return numerical_rank(self.moment)

    def state_dict(self) -> dict[str, Any]:
        """Plain containers and tensors: `size`, `count`, `sum` (n,) and `second` (the packed lower triangle)."""
        return {
            "size": self.size,
            "count": self._count,
            "sum": self._sum.clone(),
            "second": pack_triangle(self._second),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state, or leave everything as it was.

        Args:
            state: What `state_dict` gave.

        Raises:
            StateError: The state belongs to keys of another length, or is damaged.
        """
        size, total, packed = state["size"], state["sum"], state["second"]
        if size != self.size:
            raise StateError(f"Saved moments are of keys of length {size}; expected {self.size}.")
        if total.shape != (size,) or packed.shape != (size * (size + 1) // 2,):
            raise StateError(
                f"Saved moments have shapes {tuple(total.shape)} and {tuple(packed.shape)}; "
                f"expected ({size},) and ({size * (size + 1) // 2},). Collect them again."
            )
        device = self._second.device
        with torch.inference_mode(False):
            second = unpack_triangle(packed.to(device, torch.float64), size)
            own = torch.zeros(size, dtype=torch.float64, device=device).copy_(total)
        self._count, self._sum, self._second = int(state["count"]), own, second

    def _select(self, keys: Tensor, mask: Tensor | None) -> Tensor:
        """Rows (T, n) that count."""
        if keys.ndim < 1 or keys.shape[-1] != self.size:
            raise StatisticsError(f"Keys have shape {tuple(keys.shape)}; expected (..., {self.size}).")
        if mask is None:
            return keys.detach().reshape(-1, self.size)
        if mask.shape != keys.shape[:-1]:
            raise StatisticsError(
                f"The mask has shape {tuple(mask.shape)}; expected {tuple(keys.shape[:-1])}, one entry a key."
            )
        return keys.detach()[mask.to(keys.device, torch.bool)]

    def _accumulate(self, chunk: Tensor) -> None:
        """Add one float64 chunk (T, n): block rows of the lower triangle only, about half of a full product."""
        for start in range(0, self.size, _BLOCK):
            stop = min(start + _BLOCK, self.size)
            self._second[start:stop, :stop].addmm_(chunk[:, start:stop].mT, chunk[:, :stop])
        self._sum += chunk.sum(dim=0)

    def _require_keys(self) -> None:
        if self._count == 0:
            raise StatisticsError("No key has been seen; expected at least one. Call update() with keys first.")
