"""Which rows of a weight a process works on, where the weight is cut over several processes.

A closed form makes every row of a weight (d, n) from the same keys and from that row's own values, so a process can
solve, compare and write its rows alone. FSDP2 cuts `nn.Linear` along these rows, and what a process holds is what it
works on. Where a weight is cut in another way, as transformers' `Conv1D` (n, d) is, rows are shared out alike, but they
are read from the gathered weight and written through it. This file knows one weight and who shares it; it knows no
ledger.
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

from lightning_edit.errors import LedgerError
from lightning_edit.model.weights import is_transposed, parameter, read_weight, write_weight

Inputs = ParamSpec("Inputs")
Result = TypeVar("Result")


class Rows:
    """The rows of a matrix (d, n) that this process works on: all of them, or its share.

    Where they are a share, every method but `cut` is a collective: every process calls it. Shares are contiguous, the
    first ones of equal size, as `torch.chunk` and FSDP2 cut; the last may be smaller, or empty.

    Args:
        size: d.
        mesh: The processes that share the rows; None where this one has them all.
    """

    def __init__(self, size: int, mesh: DeviceMesh | None = None) -> None:
        self.size = size
        self.mesh = mesh
        rank, count = (0, 1) if mesh is None else (mesh.get_local_rank(), mesh.size())
        self.step = -(-size // count)
        self.start, self.stop = (min(part * self.step, size) for part in (rank, rank + 1))

    @classmethod
    def of(cls, projection: nn.Module, shared: bool = True) -> "Rows":
        """A process's share of the rows of a projection that is cut over a line of processes; else all of them.

        Args:
            projection: A linear module, possibly wrapped by PEFT.
            shared: Whether rows may be worked on apart from each other.
        """
        weight = parameter(projection)
        size = weight.shape[1 if is_transposed(projection) else 0]
        if not shared or not isinstance(weight, DTensor):
            return cls(size)
        mesh = weight.device_mesh
        cut = mesh.ndim == 1 and mesh.size() > 1 and isinstance(weight.placements[0], Shard)
        return cls(size, mesh if cut else None)

    @property
    def apart(self) -> bool:
        """Whether other processes have other rows."""
        return self.mesh is not None

    # ---------------------------------------------------------------- matrices
    def cut(self, whole: Tensor) -> Tensor:
        """The own rows (d_r, m) of a matrix (d, m), as a view.

        Args:
            whole: The matrix.
        """
        return whole[self.start : self.stop]

    def gather(self, own: Tensor) -> Tensor:
        """The matrix (d, m) that everybody's rows make; the tensor itself where all rows are here.

        Args:
            own: The own rows (d_r, m).
        """
        if self.mesh is None:
            return own
        mine = own.new_zeros(self.step, own.shape[1])
        mine[: len(own)] = own
        if not mine.numel():  # no columns
            return own.new_zeros(self.size, own.shape[1])
        parts = [torch.empty_like(mine) for _ in range(self.mesh.size())]
        torch.distributed.all_gather(parts, mine, group=self.mesh.get_group())
        return torch.cat(parts)[: self.size]

    def norm(self, own: Tensor) -> float:
        """Frobenius norm of the whole matrix, the same number everywhere.

        Args:
            own: The own rows (d_r, m).
        """
        if self.mesh is None:
            return float(own.norm())
        square = own.double().square().sum()
        torch.distributed.all_reduce(square, group=self.mesh.get_group())
        return float(square.sqrt())

    # ---------------------------------------------------------------- the weight
    def read(self, projection: nn.Module) -> Tensor:
        """The own rows (d_r, n) of the weight in its own dtype, detached; a view where they lie here.

        Args:
            projection: A linear module, possibly wrapped by PEFT.
        """
        held = self._held(projection)
        return self.cut(read_weight(projection)) if held is None else held

    def write(self, projection: nn.Module, own: Tensor) -> None:
        """Write the own rows into the parameter, in place, rounded to its dtype.

        Args:
            projection: A linear module, possibly wrapped by PEFT.
            own: The new rows (d_r, n).
        """
        held = self._held(projection)
        if held is None:
            write_weight(projection, self.gather(own.to(parameter(projection).dtype)))
        else:
            held.copy_(own)

    # ---------------------------------------------------------------- one decision everywhere
    def all(self, here: bool) -> bool:
        """Whether something is so for every process's rows.

        Args:
            here: Whether it is so for the own ones.
        """
        if self.mesh is None:
            return here
        votes = torch.tensor([int(here)], device=self.mesh.device_type)
        torch.distributed.all_reduce(votes, torch.distributed.ReduceOp.MIN, group=self.mesh.get_group())
        return bool(votes.item())

    def together(self, action: Callable[Inputs, Result], *args: Inputs.args, **options: Inputs.kwargs) -> Result:
        """Do something with the own rows that may fail; it fails on every process or on none.

        Args:
            action: What to do; no collective.
            args: Its arguments.
            options: Its further arguments.

        Raises:
            LedgerError: It failed on another process.
        """
        if self.mesh is None:
            return action(*args, **options)
        error: Exception | None = None
        try:
            result = action(*args, **options)
        except Exception as caught:  # told to all processes, then raised
            error = caught
        if self.all(error is None):
            return result
        raise error or LedgerError("another process could not solve its rows of the weight; its own message says why.")

    def _held(self, projection: nn.Module) -> Tensor | None:
        """The own rows where they lie (d_r, n), a view of the parameter; None where that holds other ones."""
        weight, transposed = parameter(projection).detach(), is_transposed(projection)
        if self.mesh is None or not isinstance(weight, DTensor) or weight.device_mesh != self.mesh:
            return None
        if weight.placements[0] != Shard(1 if transposed else 0):
            return None
        local: Tensor = weight.to_local()
        return local.T if transposed else local
