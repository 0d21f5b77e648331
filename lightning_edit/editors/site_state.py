"""What a site is as a whole, where several processes share the rows of its weight.

A checkpoint holds all rows, so that one process alone can load it, or another number of them. Everything here is a
collective where rows are shared. This file moves no weights.
"""

from dataclasses import replace
from typing import Any

from lightning_edit.algebra import SiteLedger
from lightning_edit.editors.edited_site import EditedSite
from lightning_edit.model.rows import Rows

ROWS_OF_LEDGER = ("base", "values")  # of a ledger's state, what has a row for each row of the weight
ROWS_OF_SITE = ("deployed", "ignored", "origin")


def whole_ledger(site: EditedSite) -> SiteLedger:
    """The ledger of all rows; the site's own where this process works on all of them.

    Args:
        site: An edited site.
    """
    if not site.rows.apart:
        return site.ledger
    kept = site.ledger.snapshot()
    base, values = site.rows.gather(kept.base), site.rows.gather(kept.values)
    ledger = SiteLedger(base, kept.prior, kept.noise, compact=site.ledger.compact)
    ledger.restore(replace(kept, base=base, values=values))
    return ledger


def site_state(site: EditedSite, include_prior: bool = True) -> dict[str, Any]:
    """Tensors and plain containers, of all rows.

    Args:
        site: An edited site.
        include_prior: Whether the prior's tensors go along; without, only its fingerprint does.
    """
    ledger = site.ledger.state_dict(include_prior)
    ledger |= {name: site.rows.gather(ledger[name]) for name in ROWS_OF_LEDGER}
    matrices = {name: getattr(site, name) for name in ROWS_OF_SITE}
    whole = {name: None if own is None else site.rows.gather(own) for name, own in matrices.items()}
    return {"ledger": ledger, "source": site.source, "pending": site.pending, **whole}


def own_rows(state: dict[str, Any], rows: Rows) -> dict[str, Any]:
    """A state of a site with the rows that this process works on.

    Args:
        state: What `site_state` gave.
        rows: Which rows those are.
    """
    ledger = state["ledger"] | {name: rows.cut(state["ledger"][name]) for name in ROWS_OF_LEDGER}
    own = {name: rows.cut(whole) for name in ROWS_OF_SITE if (whole := state.get(name)) is not None}
    return {**state, "ledger": ledger, **own}
