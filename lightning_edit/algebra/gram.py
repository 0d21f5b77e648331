"""The ledger's equations in Gram form: one N x N factor for N columns, grown as columns arrive.

Knows keys and a prior. Refuses to know values, base weights and ids beyond their names in messages. Immutable: every
change returns a new object that shares the tensors which did not change.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_edit.algebra import factor as growing
from lightning_edit.algebra.prior import Prior
from lightning_edit.algebra.triangles import pack_triangle, solve_right, unpack_triangle


@dataclass(frozen=True, slots=True)
class GramForm:
    """Solves with s I + Kᵀ Q K through its Cholesky factor.

    Args:
        noise: s.
        half: Z = F K (n, N), with Q = Fᵀ F.
        lifted: Q K (n, N), stored so that Q is applied to a key once in its life; None where it is a multiple of Z.
        factor: That multiple; 1 beside a stored Q K.
        lower: L (N, N) with L Lᵀ = s I + Zᵀ Z.
    """

    kind: ClassVar[str] = "gram"
    noise: float
    half: Tensor
    lifted: Tensor | None
    factor: float
    lower: Tensor

    @classmethod
    def build(cls, prior: Prior, noise: float, keys: Tensor, ids: list[str]) -> "GramForm":
        """Factor a set of keys from nothing.

        Args:
            prior: Q.
            noise: s.
            keys: K (n, N).
            ids: Names of the columns, for messages.
        """
        empty, factor = keys.new_zeros(keys.shape[0], 0), prior.lift_factor
        form = cls(noise, empty, empty if factor is None else None, factor or 1.0, keys.new_zeros(0, 0))
        return form.append(prior, keys, ids)

    @classmethod
    def around(cls, prior: Prior, noise: float, keys: Tensor, lower: Tensor) -> "GramForm":
        """Make again what belongs to a factor that was kept.

        Args:
            prior: Q.
            noise: s.
            keys: K (n, N).
            lower: The factor L (N, N).
        """
        half, factor = prior.half(keys), prior.lift_factor
        return cls(noise, half, prior.lift(half) if factor is None else None, factor or 1.0, lower)

    @property
    def response(self) -> Tensor:
        """Y = Q K (n, N)."""
        return self.half * self.factor if self.lifted is None else self.lifted

    def append(self, prior: Prior, keys: Tensor, ids: list[str]) -> "GramForm":
        """Add columns: Q applied to the new keys, one cross product, one small factor.

        Args:
            prior: Q.
            keys: The new keys (n, m).
            ids: Names of all N + m columns, for messages.
        """
        half = prior.half(keys)
        if self.noise == 0:
            growing.check_reach(prior.project(keys), keys, ids[len(ids) - keys.shape[1] :])
        return self._append(half, None if self.lifted is None else prior.lift(half), ids)

    def keep(self, kept: list[int], ids: list[str]) -> "GramForm":
        """Keep some columns: what stands before the first dropped one stays as it is, the rest is appended again.

        Args:
            kept: Indices of the columns that stay, ascending.
            ids: Their names, for messages.
        """
        same = next((i for i, index in enumerate(kept) if i != index), len(kept))
        front, rest = (
            (_columns(self.half, part), None if self.lifted is None else _columns(self.lifted, part))
            for part in (kept[:same], kept[same:])
        )
        head = GramForm(self.noise, *front, self.factor, growing.truncate(self.lower, same))
        return head._append(*rest, ids)

    def exchange(self, prior: Prior, places: list[int], keys: Tensor, ids: list[str]) -> "GramForm":
        """Give some columns other keys, in place; what stands before the first of them stays as it is.

        Args:
            prior: Q.
            places: Indices of the columns.
            keys: Their new keys (n, m).
            ids: Names of all columns, for messages.
        """
        where = torch.tensor(places, dtype=torch.long, device=keys.device)
        new = prior.half(keys)
        if self.noise == 0:
            growing.check_reach(prior.project(keys), keys, [ids[index] for index in places])
        half = self.half.index_copy(1, where, new)
        lifted = None if self.lifted is None else self.lifted.index_copy(1, where, prior.lift(new))
        same = list(range(min(places)))
        rest = list(range(min(places), half.shape[1]))
        behind = None if lifted is None else _columns(lifted, rest)
        return self.keep(same, ids)._append(_columns(half, rest), behind, ids)

    def coefficients(self, rows: Tensor) -> Tensor:
        """R (s I + Kᵀ Q K)⁻¹.

        Args:
            rows: R (m, N).
        """
        return solve_right(rows, self.lower)

    def correction(self, rows: Tensor) -> Tensor:
        """R (s I + Kᵀ Q K)⁻¹ Kᵀ Q (m, n).

        Args:
            rows: R (m, N).
        """
        coefficients = self.coefficients(rows)
        if self.lifted is None:
            return (coefficients * self.factor) @ self.half.mT
        return coefficients @ self.lifted.mT

    def condition(self) -> float:
        """Condition number of s I + Kᵀ Q K, from the singular values of its factor."""
        values = torch.linalg.svdvals(self.lower)
        return float((values[0] / values[-1]) ** 2)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers, with the factor."""
        response = {"factor": self.factor} if self.lifted is None else {"response": self.lifted}
        return {"half": self.half, **response, "lower": pack_triangle(self.lower)}

    @classmethod
    def from_state(cls, state: dict[str, Any], noise: float, device: torch.device) -> "GramForm":
        """Read back `state_dict`, bit for bit.

        Args:
            state: What it gave.
            noise: s.
            device: Where the tensors go.
        """
        half, factor = state["half"].to(device), float(state.get("factor", 1.0))
        lifted = None if "factor" in state else state["response"].to(device)
        return cls(noise, half, lifted, factor, unpack_triangle(state["lower"].to(device), half.shape[1]))

    def _append(self, half: Tensor, lifted: Tensor | None, ids: list[str]) -> "GramForm":
        lower = growing.append(self.lower, self.half, half, self.noise, ids)
        both = None if self.lifted is None or lifted is None else torch.cat([self.lifted, lifted], dim=1)
        return GramForm(self.noise, torch.cat([self.half, half], dim=1), both, self.factor, lower)


def _columns(matrix: Tensor, indices: list[int]) -> Tensor:
    """Some columns of a matrix, copied."""
    return matrix[:, torch.tensor(indices, dtype=torch.long, device=matrix.device)].contiguous()
