"""One edited projection: its ledger, what was written to it last, and how the next weight gets there.

Between two edits training may move the weight. Drift is `W_now - W_deployed`, and a policy says what it is:
`adopt` (training is right about everything but the edits), `restore` (an error that the next deployment cancels) or
`ignore` (never noticed: updates are added to whatever is there). Rounding on write is measured, never assumed away.
This file moves weights; it knows neither requests nor how keys and values are found.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_edit.algebra import Mode, Prior, Restriction, SiteLedger, Snapshot, next_weight
from lightning_edit.errors import LedgerError
from lightning_edit.model.weights import read_weight, write_weight

Drift = Literal["adopt", "restore", "ignore"]


def fingerprint(weight: Tensor) -> str:
    """sha256 of a weight's bits.

    Args:
        weight: A matrix.
    """
    return hashlib.sha256(weight.detach().cpu().contiguous().view(torch.uint8).numpy().data).hexdigest()


@dataclass(frozen=True, slots=True)
class SiteBackup:
    """Everything that an operation on a site may change.

    Args:
        weight: The parameter (d, n), a copy.
        ledger: The ledger.
        deployed: What was deployed last.
        pending: What the last deployment still owed.
        ignored: Drift that is ignored.
    """

    weight: Tensor
    ledger: Snapshot
    deployed: Tensor
    pending: float
    ignored: Tensor | None


class EditedSite:
    """A projection under edit. The module itself is handed in anew at every call.

    Args:
        layer: Number of its block.
        ledger: The exact weight and what it is made of.
        deployed: The weight after the last write, bit for bit, in its own dtype (d, n).
        restriction: What stands between the exact update and the deployed one.
        mode: How the restriction is applied.
        source: Fingerprint of the weight that the first edit found.
    """

    def __init__(
        self, layer: int, ledger: SiteLedger, deployed: Tensor, restriction: Restriction, mode: Mode, source: str
    ) -> None:
        self.layer = layer
        self.ledger = ledger
        self.deployed = deployed
        self.restriction = restriction
        self.mode = mode
        self.source = source
        self.pending = 0.0  # Frobenius norm of deployed minus exact weight, ignored drift aside
        self.ignored: Tensor | None = None  # all drift so far that must not be noticed (d, n), float64

    @classmethod
    def fresh(
        cls, layer: int, projection: nn.Module, prior: Prior, noise: float, restriction: Restriction, mode: Mode
    ) -> "EditedSite":
        """A site whose base is the weight as it is now.

        Args:
            layer: Number of its block.
            projection: The module.
            prior: The prior of its keys.
            noise: The ledger's noise.
            restriction: What stands between the exact update and the deployed one.
            mode: How the restriction is applied.
        """
        weight = read_weight(projection).clone(memory_format=torch.contiguous_format)
        return cls(layer, SiteLedger(weight, prior, noise), weight.clone(), restriction, mode, fingerprint(weight))

    def begin(self, projection: nn.Module, policy: Drift) -> tuple[float, bool]:
        """Look at what moved the weight since the last deployment, and take a stand on it.

        Args:
            projection: The module.
            policy: What to make of drift.

        Returns:
            The drift's Frobenius norm, and whether the weight has to be deployed again because of it.
        """
        now = read_weight(projection)
        if torch.equal(now, self.deployed):
            return 0.0, False
        drift = now.double() - self.deployed.double()
        if not drift.isfinite().all():
            raise LedgerError(
                f"the weight of layer {self.layer} is not finite any more; expected finite weights between edits. "
                "Training has diverged: go back to an earlier checkpoint."
            )
        if policy == "ignore":
            self.ignored = drift if self.ignored is None else self.ignored + drift
            self.deployed = now.clone(memory_format=torch.contiguous_format)
        elif policy == "adopt":
            self.ledger.adopt(drift)
        return float(drift.norm()), policy != "ignore"

    def enter_base(self, projection: nn.Module) -> None:
        """Let the model carry the base weight, for reading; a deployment has to follow.

        Args:
            projection: The module.
        """
        write_weight(projection, self._on_top(self.ledger.base.double()))

    def wanted_output(self, projection: nn.Module, keys: Tensor, residual: Tensor) -> Tensor:
        """Values (d, m) that make up for a residual, seen from the weight the model carries now.

        Args:
            projection: The module.
            keys: Keys (n, m).
            residual: What the output lacks (d, m).
        """
        return self._seen(projection) @ keys + residual

    def deploy(self, projection: nn.Module, added: Sequence[str] = ()) -> None:
        """Write the next weight into the model and remember what it became.

        Args:
            projection: The module.
            added: Columns that are new since the last deployment; only the mode "none" asks.
        """
        if self.mode == "none" and not added and len(self.ledger):
            raise LedgerError(
                'deployment "none" adds edits without looking back, so it can neither undo nor repair; '
                'expected new columns. Use deployment="feedback".'
            )
        now, exact = self._seen(projection), self.ledger.solution()
        increment = self.ledger.increment(added, now) if self.mode == "none" and added else None
        mode = "feedback" if increment is None and self.mode == "none" else self.mode
        base = self.ledger.base.double()
        following = next_weight(exact, now, base, self.restriction, mode, increment)
        write_weight(projection, self._on_top(following))
        self.deployed = read_weight(projection).clone(memory_format=torch.contiguous_format)
        if not self.deployed.isfinite().all():
            raise LedgerError(
                f"the edited weight of layer {self.layer} is not finite in {self.deployed.dtype}; expected finite "
                "entries. Lower the clamp, or give the prior more weight."
            )
        self.pending = float((self._seen(projection) - exact).norm())

    def backup(self, projection: nn.Module) -> SiteBackup:
        """Everything an operation may change.

        Args:
            projection: The module.
        """
        weight = read_weight(projection).clone()
        return SiteBackup(weight, self.ledger.snapshot(), self.deployed, self.pending, self.ignored)

    def restore(self, projection: nn.Module, backup: SiteBackup) -> None:
        """Go back, bit for bit.

        Args:
            projection: The module.
            backup: What `backup` gave.
        """
        write_weight(projection, backup.weight)
        self.ledger.restore(backup.ledger)
        self.deployed, self.pending, self.ignored = backup.deployed, backup.pending, backup.ignored

    def _seen(self, projection: nn.Module) -> Tensor:
        """The weight in the model in float64, without the drift that is ignored."""
        now = read_weight(projection).double()
        return now if self.ignored is None else now - self.ignored

    def _on_top(self, weight: Tensor) -> Tensor:
        """A weight with the drift that is ignored."""
        return weight if self.ignored is None else weight + self.ignored
