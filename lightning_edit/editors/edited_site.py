"""One edited projection: its ledger, what was written to it last, and how the next weight gets there.

Where training has moved the weight between two edits, a policy says what that drift is: `adopt` (training is right
about everything but the edits), `restore` (an error that the next deployment cancels) or `ignore` (never noticed:
updates are added to whatever is there). Where several processes share the rows of the weight, a site is about the rows
of this one, and each of its methods is a collective. What the model carries stands in `carried_weight.py`; this file
knows neither requests nor how keys and values are found.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from lightning_edit.algebra import Deployment, Penalty, Prior, SiteLedger, flush, identity, next_weight
from lightning_edit.editors.carried_weight import CarriedWeight
from lightning_edit.editors.site_backup import SiteBackup, fingerprint
from lightning_edit.model.rows import Rows
from lightning_edit.model.weights import read_weight

Drift = Literal["adopt", "restore", "ignore"]


class EditedSite(CarriedWeight):
    """A projection under edit. The module itself is handed in anew at every call.

    Args:
        layer: Number of its block.
        ledger: The exact weight and what it is made of; the own rows of base and values.
        deployed: The weight after the last write, bit for bit, in its own dtype (d, n); the own rows.
        deployment: What stands between the exact update and the deployed one, and how it is applied.
        source: Fingerprint of the weight that the first edit found.
        from_base: Whether targets are read on the weight before any edit.
        rows: Which rows are the own ones; all where None.
    """

    def __init__(
        self,
        layer: int,
        ledger: SiteLedger,
        deployed: Tensor,
        deployment: Deployment,
        source: str,
        from_base: bool = False,
        rows: Rows | None = None,
    ) -> None:
        super().__init__(layer, deployed, Rows(len(deployed)) if rows is None else rows)
        self.ledger = ledger
        self.deployment = deployment
        self.source = source
        self.restricted = True  # whether the restriction is at work by now, see `Deployment.after`
        self.pending = 0.0  # Frobenius norm of deployed minus exact weight, ignored drift aside
        self.keeps_origin = from_base or deployment.mode == "project_total" or deployment.reference == "original"
        self.origin: Tensor | None = None  # W_b before anything was absorbed, if it is kept (d, n)
        self._last = ledger.snapshot()  # the ledger when the weight was deployed last
        self._held: Tensor | None = None  # the deployed weight while the model carries another, for reading (d, n)

    @classmethod
    def fresh(
        cls,
        layer: int,
        projection: nn.Module,
        prior: Prior,
        noise: float,
        deployment: Deployment,
        penalty: Penalty | None = None,
        compact: bool = False,
        from_base: bool = False,
        rows: Rows | None = None,
    ) -> "EditedSite":
        """A site whose base is the weight as it is now.

        Args:
            layer: Number of its block.
            projection: The module.
            prior: The prior of its keys.
            noise: The ledger's noise.
            deployment: What stands between the exact update and the deployed one.
            penalty: What the exact update minimises besides.
            compact: Whether the ledger puts by what it can make again, between deployments.
            from_base: Whether targets are read on the weight before any edit.
            rows: The rows that this process works on; all where None.
        """
        whole = read_weight(projection)
        rows = Rows(len(whole)) if rows is None else rows
        weight = rows.cut(whole).clone(memory_format=torch.contiguous_format)
        ledger = rows.together(SiteLedger, weight, prior, noise, penalty, compact)
        return cls(layer, ledger, weight.clone(), deployment, fingerprint(whole), from_base, rows)

    def begin(self, projection: nn.Module, policy: Drift) -> tuple[float, bool]:
        """Look at what moved the weight since the last deployment, and take a stand on it.

        Args:
            projection: The module.
            policy: What to make of drift.

        Returns:
            The drift's Frobenius norm, and whether the weight has to be deployed again because of it.
        """
        drift = self._drift(projection)
        if drift is None:
            return 0.0, False
        if policy == "ignore":
            self._ignore(drift, projection)
        elif policy == "adopt":
            self._adopt(drift)
        elif self.deployment.mode == "none":  # which corrects nothing by itself
            self.reinstate(projection)
        return self.rows.norm(drift), policy != "ignore"

    def hold(self, projection: nn.Module) -> None:
        """Put the deployed weight by: until `release`, the model carries unrestricted weights, for reading.

        Args:
            projection: The module.
        """
        if self._held is None and not self._deploys_exactly:
            self._held = self._seen(projection).clone()

    def enter_base(self, projection: nn.Module) -> None:
        """Let the model carry the weight before any edit, for reading; a deployment has to follow, or `reinstate`.

        Args:
            projection: The module.
        """
        self._put(projection, self._base)

    def release(self, projection: nn.Module) -> None:
        """Deploy from the weight that was put by, if one was.

        Args:
            projection: The module.
        """
        if self._held is not None:
            held, self._held = self._held, None
            self._deploy_from(held, projection)

    def wanted_output(self, projection: nn.Module, keys: Tensor, residual: Tensor) -> Tensor:
        """The own rows of values (d, m) that make up for a residual, seen from the weight the model carries now.

        Args:
            projection: The module.
            keys: Keys (n, m).
            residual: What the output lacks (d, m).
        """
        return self._seen(projection) @ keys + self.rows.cut(residual)

    def deploy(self, projection: nn.Module) -> None:
        """Write the next weight into the model and remember what it became.

        While a weight is put by, the next weight is the unrestricted one, and nothing is remembered.

        Args:
            projection: The module.
        """
        if self._held is None:
            self._deploy_from(self._seen(projection), projection)
        else:
            self._put(projection, self._next(self._exact(), self._held, restricted=False))

    def deploy_exactly(self, projection: nn.Module) -> None:
        """Write the exact weight, whatever the deployment says, and remember what it became.

        Args:
            projection: The module.
        """
        exact = self._exact()
        self._put(projection, exact)
        self._remember(exact, projection)

    def distance(self, projection: nn.Module) -> float:
        """Frobenius norm of what the model carries minus the exact weight, ignored drift aside.

        Args:
            projection: The module.
        """
        return self.rows.norm(self._seen(projection) - self._exact())

    def absorb(self, projection: nn.Module) -> None:
        """Forget the columns: the base becomes the exact weight, or the deployed one if that is never corrected.

        Args:
            projection: The module.
        """
        if self.keeps_origin and self.origin is None:
            self.origin = self.ledger.base
        seen = self._seen(projection) if self.deployment.mode == "none" else None
        self.rows.together(self.ledger.absorb, seen)
        self._last = self.ledger.snapshot()

    def backup(self, projection: nn.Module) -> SiteBackup:
        """Everything an operation may change.

        Args:
            projection: The module.
        """
        weight, ledger = self.rows.read(projection).clone(), self.ledger.snapshot()
        return SiteBackup(weight, ledger, self._last, self.deployed, self.pending, self.ignored, self.origin)

    def restore(self, projection: nn.Module, backup: SiteBackup) -> None:
        """Go back, bit for bit.

        Args:
            projection: The module.
            backup: What `backup` gave.
        """
        self.rows.write(projection, backup.weight)
        self.ledger.restore(backup.ledger)
        self._last, self._held = backup.last, None
        self.deployed, self.pending = backup.deployed, backup.pending
        self.ignored, self.origin = backup.ignored, backup.origin

    @property
    def _deploys_exactly(self) -> bool:
        """Whether the exact weight is what is deployed."""
        unrestricted = not self.restricted or self.deployment.restriction is identity
        return unrestricted and self.deployment.mode != "none"

    def _adopt(self, drift: Tensor) -> None:
        """Let the base take over drift, and with it the weight before anything was absorbed."""
        before = self.ledger.base
        self.rows.together(self.ledger.adopt, drift)
        if self.origin is not None:
            moved = self.origin.double() + (self.ledger.base.double() - before.double())
            self.origin = moved.to(self.origin.dtype)

    def _deploy_from(self, now: Tensor, projection: nn.Module) -> None:
        """Write the weight that follows on a deployed one (d, n), float64, and remember what it became."""
        exact, how = self._exact(), self.deployment
        became = self._write(projection, self._next(exact, now, self.restricted))
        if how.mode == "flush" and not self._deploys_exactly:
            more = how.flush_steps - 1
            flush(exact, became, self._base, how.restriction, lambda w: self._write(projection, w), more, how.reference)
        self._remember(exact, projection)

    def _remember(self, exact: Tensor, projection: nn.Module) -> None:
        """What the weight in the model became, and how far from the exact one (d, n) it is."""
        self._accept(projection)
        self.pending = self.rows.norm(self._seen(projection) - exact)
        self.ledger.rest()
        self._last = self.ledger.snapshot()

    def _next(self, exact: Tensor, now: Tensor, restricted: bool) -> Tensor:
        """The weight that follows on a deployed one (d, n), float64."""
        how = self.deployment
        restriction = how.restriction if restricted else identity
        apart = self.rows.together
        increment = apart(self.ledger.increment, self._last, now) if how.mode == "none" else None
        return next_weight(exact, now, self._base, restriction, how.mode, increment, how.reference)

    @property
    def _base(self) -> Tensor:
        """The weight before any edit, which totals are relative to (d, n), float64."""
        return (self.ledger.base if self.origin is None else self.origin).double()

    def _exact(self) -> Tensor:
        """The own rows of the exact weight, float64."""
        return self.rows.together(self.ledger.solution)
