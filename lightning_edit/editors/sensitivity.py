"""Sensitivity-aware editing: MEMIT that pays more for the output directions which ordinary text hardly uses.

    S minimises  sum_k w_k u_k'(S - W_b) lambda M (S - W_b)'u_k + ||V - S K||^2,    w_k ~ sigma_k^(-2a)

With a = 1 the first term is lambda times the sum of the expected squared relative change rates of *Revisiting* (arXiv
2606.00570, Definition 4.4). `docs/safer-editing.md` derives it; `algebra/sensitivity.py` solves it. This file knows
where directions and weights come from: the key statistics that the prior is made of, and the base weight.
"""

from typing import Any

from torch import Tensor

from lightning_edit.algebra import KeyCovariance, Prior
from lightning_edit.algebra.sensitive_ledger import SensitiveLedger
from lightning_edit.algebra.sensitivity import Sensitivity
from lightning_edit.editors.base import Mode
from lightning_edit.editors.edited_site import EditedSite
from lightning_edit.editors.estate import Estate
from lightning_edit.editors.memit import MEMIT
from lightning_edit.editors.presets import Preset
from lightning_edit.editors.reading import Reader
from lightning_edit.errors import EditError, StatisticsError
from lightning_edit.model.language_model import LanguageModel


class SensitivityAware(MEMIT):
    """MEMIT with a price on each direction of the projection's output.

    Directions and weights are found from the key statistics when a layer is edited for the first time, and again by
    `reprior`. A commit costs N³ for N active columns: no factor grows.

    Args:
        exponent: a: 0 is MEMIT, 1 minimises expected R_k² besides.
        cap: Largest weight; the geometric mean of all is 1.
        deployment: As for `ClosedFormEditor`, but for `none`: there is no single C_t.
        options: See `MEMIT`, `CovarianceEditor` and `ClosedFormEditor`.
    """

    def __init__(self, exponent: float = 1.0, cap: float = 1e3, deployment: Mode = "feedback", **options: Any) -> None:
        if not exponent >= 0 or not cap >= 1:
            raise EditError(f"found exponent={exponent} and cap={cap}; expected an exponent >= 0 and a cap >= 1.")
        if deployment == "none":
            raise EditError(f"deployment={deployment!r} reads one C_t for all directions; expected another mode.")
        if options.get("penalty") is not None:
            raise EditError("a penalty beside weighted directions has no solver; expected one of the two.")
        self.exponent, self.cap = exponent, cap
        self._statistics: dict[str, KeyCovariance] = {}  # what a prior was made of, by its fingerprint
        super().__init__(deployment=deployment, **options)
        self._estate = SensitiveEstate(self._estate, self)

    def make_prior(self, statistics: KeyCovariance, preset: Preset) -> Prior:
        """MEMIT's; what it is made of is remembered until the directions are found.

        Args:
            statistics: Key moments of the layer.
            preset: Settings of the model.
        """
        prior = super().make_prior(statistics, preset)
        self._statistics[prior.fingerprint] = statistics
        return prior

    def find_sensitivity(self, base: Tensor, prior: Prior) -> Sensitivity:
        """Directions and weights of one layer's output.

        Args:
            base: W_b (d, n).
            prior: A prior that `make_prior` gave.
        """
        known = self._statistics.get(prior.fingerprint)
        if known is None:
            raise StatisticsError(
                "the statistics that a layer's prior was made of are not at hand; expected them, for the directions of "
                "its output. Call editor.prepare(module, statistics=...) first."
            )
        moments = (known.moment.to(base.device), known.mean.to(base.device))
        return Sensitivity.from_moments(base, *moments, self.exponent, self.cap)


class SensitiveEstate(Estate):
    """The sites of a sensitivity-aware editor: those of any editor, with another ledger in each.

    Args:
        plain: The estate that the editor has declared.
        editor: The editor.
    """

    rows_apart = False  # directions of the output are made of all rows

    def __init__(self, plain: Estate, editor: SensitivityAware) -> None:
        super().__init__(plain.declaration)
        self._editor = editor

    def open(self, lm: LanguageModel) -> Reader:
        """Have ledgers, with directions and weights.

        Args:
            lm: The language model.
        """
        reader = super().open(lm)
        for site in self.sites:
            if not isinstance(site.ledger, SensitiveLedger):
                found = self._editor.find_sensitivity(site.ledger.base, site.ledger.prior)
                site.ledger = SensitiveLedger.of(site.ledger, found, self._editor.find_sensitivity)
        return reader

    def _site(self, lm: LanguageModel, layer: int, state: dict[str, Any]) -> EditedSite:
        """A site out of a loaded state."""
        site = super()._site(lm, layer, state)
        found = Sensitivity.from_state(state["ledger"]["sensitivity"])
        site.ledger = SensitiveLedger.of(site.ledger, found, self._editor.find_sensitivity)
        return site
