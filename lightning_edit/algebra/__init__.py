"""The algebra of closed-form editing: float64 functions and small objects on tensors.

Knows no model, no Trainer and no request. Everything an editor needs is a prior (where an update may go), a noise (how
exactly values are met), a ledger (which keys must give which values) and a restriction (what of it is deployed).
"""

from lightning_edit.algebra.deployment import Deployment, Flushed, Mode, Reference, flush, next_weight
from lightning_edit.algebra.ledger import SiteLedger
from lightning_edit.algebra.moments import KeyCovariance
from lightning_edit.algebra.penalties import L1Penalty, Penalty
from lightning_edit.algebra.priors import (
    CovariancePrior,
    NullSpacePrior,
    Prior,
    ProjectedPrior,
    RidgePrior,
    prior_from_state,
)
from lightning_edit.algebra.restrictions import Restriction, SpectrumLimit, TopKRelativeChange, identity
from lightning_edit.algebra.snapshot import Snapshot
from lightning_edit.algebra.statistics_file import Identity, load_statistics, read_identity, save_statistics

__all__ = [
    "CovariancePrior",
    "Deployment",
    "Flushed",
    "Identity",
    "KeyCovariance",
    "L1Penalty",
    "Mode",
    "NullSpacePrior",
    "Penalty",
    "Prior",
    "ProjectedPrior",
    "Reference",
    "Restriction",
    "RidgePrior",
    "SiteLedger",
    "Snapshot",
    "SpectrumLimit",
    "TopKRelativeChange",
    "flush",
    "identity",
    "load_statistics",
    "next_weight",
    "prior_from_state",
    "read_identity",
    "save_statistics",
]
