"""The weight that a model carries at one edited projection, as its site sees it.

Between two edits training may move the weight. Drift is `W_now - W_deployed`; where it is to be ignored it is kept
here, taken off whatever is read and put on top of whatever is written, so that nobody else has to know of it. This file
compares and moves weights; what they should be stands in `edited_site.py`.
"""

import torch
from torch import Tensor, nn

from lightning_edit.errors import LedgerError
from lightning_edit.model.rows import Rows


class CarriedWeight:
    """What was written into a projection last, and what is there now. The module itself is handed in at every call.

    Args:
        layer: Number of its block.
        deployed: The weight after the last write, bit for bit, in its own dtype (d, n); the own rows.
        rows: Which rows are the own ones.
    """

    def __init__(self, layer: int, deployed: Tensor, rows: Rows) -> None:
        self.layer = layer
        self.deployed = deployed
        self.rows = rows
        self.ignored: Tensor | None = None  # all drift so far that must not be noticed (d, n), float64

    def reinstate(self, projection: nn.Module) -> None:
        """Write what was deployed last, bit for bit, into a model that carries something else.

        Args:
            projection: The module.
        """
        self.rows.write(projection, self.deployed)

    def moved(self, projection: nn.Module, since: Tensor) -> float:
        """Frobenius norm of what the model carries minus what it carried.

        Args:
            projection: The module.
            since: The own rows of the weight then.
        """
        return self.rows.norm(self.rows.read(projection).double() - since.double())

    def _drift(self, projection: nn.Module) -> Tensor | None:
        """What moved the weight since the last write (d, n), float64; None where nothing did."""
        now = self.rows.read(projection)
        if self.rows.all(torch.equal(now, self.deployed)):
            return None
        drift = now.double() - self.deployed.double()
        if not self.rows.all(bool(drift.isfinite().all())):
            raise LedgerError(
                f"the weight of layer {self.layer} is not finite any more; expected finite weights between edits. "
                "Training has diverged: go back to an earlier checkpoint."
            )
        return drift

    def _ignore(self, drift: Tensor, projection: nn.Module) -> None:
        """Never notice a drift (d, n): what the model carries now is what was deployed."""
        self.ignored = drift if self.ignored is None else self.ignored + drift
        self.deployed = self._copy(projection)

    def _accept(self, projection: nn.Module) -> None:
        """Remember what the last write became; rounding is measured, never assumed away."""
        self.deployed = self._copy(projection)
        if not self.rows.all(bool(self.deployed.isfinite().all())):
            raise LedgerError(
                f"the edited weight of layer {self.layer} is not finite in {self.deployed.dtype}; expected finite "
                "entries. Lower the clamp, or give the prior more weight."
            )

    def _seen(self, projection: nn.Module) -> Tensor:
        """The weight in the model in float64, without the drift that is ignored."""
        now = self.rows.read(projection).double()
        return now if self.ignored is None else now - self.ignored

    def _put(self, projection: nn.Module, weight: Tensor) -> None:
        """Write a weight (d, n) with the drift that is ignored."""
        self.rows.write(projection, weight if self.ignored is None else weight + self.ignored)

    def _write(self, projection: nn.Module, weight: Tensor) -> Tensor:
        """Write a weight (d, n) and return what it became, both without the drift that is ignored."""
        self._put(projection, weight)
        return self._seen(projection).clone()

    def _copy(self, projection: nn.Module) -> Tensor:
        """What the model carries, bit for bit."""
        return self.rows.read(projection).clone(memory_format=torch.contiguous_format)
