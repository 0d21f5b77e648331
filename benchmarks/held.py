"""What a commit costs as a site holds more edits.

A commit of one batch is timed onto more and more columns of a small site, against solving densely from the columns
(C is kept, as published scripts keep it). Past n / 2 columns the ledger changes from a factor of the columns to one of
the keys' space; the table says in which form it was, and the picture `held.png` how far the solution is from the dense
one, which is checked each time. Where it has changed, the factor of the columns is timed beside it, for as long as that
is bearable.

Run it alone: `python -m benchmarks held`
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.ledger import Site
from benchmarks.setting import Sizes
from benchmarks.timing import Clock, Row, compare, stopwatch
from lightning_edit.algebra import CovariancePrior, SiteLedger
from lightning_edit.algebra.gram import GramForm

BATCH = 20


def measure(sizes: Sizes, clock: Clock) -> list[Row]:
    """Time commits onto more and more columns.

    Args:
        sizes: Shapes and numbers of columns.
        clock: By which clock.
    """
    (d, n), batch = sizes.held_shape, min(BATCH, sizes.held[0])
    site = _site(d, n, max(sizes.held) + batch)
    rows: list[Row] = []
    for held in sizes.held:
        ledger = SiteLedger(site.base, CovariancePrior(site.moment, site.weight))
        ledger.set_columns([str(i) for i in range(held)], site.keys[:, :held], site.values[:, :held])
        before, old = ledger.snapshot(), site.keys[:, :held]
        covariance = site.weight * site.moment + old @ old.mT

        def commit(ledger: SiteLedger = ledger, before: object = before, held: int = held) -> Tensor:
            ledger.restore(before)  # type: ignore[arg-type]
            return site.append(ledger, held, held + batch)

        dense = partial(site.dense, covariance, held, held + batch)
        exact, found = dense()[0], commit()
        error = float((found - exact).norm() / (exact - site.base).norm())
        assert error <= 1e-9, "the ledger and the dense solve disagree"
        name = f"n = {n}, {batch} onto {held}"
        ways = {f"{name}, dense": stopwatch(dense, clock), f"{name}, {ledger.form} form": stopwatch(commit, clock)}
        if ledger.form == "primal" and held <= sizes.held_gram:
            ways[f"{name}, gram form kept"] = stopwatch(_gram_commit(site, held, batch), clock)
        details: dict[str, float | str] = {"held": held, "form": ledger.form, "error": error, "half": n // 2}
        found = compare("held", ways, sizes.ledger_rounds)
        rows += [replace(row, details={**details, "kept": float(row is not found[0])}) for row in found]
    return rows


def _gram_commit(site: Site, held: int, batch: int) -> Callable[[], Tensor]:
    """A commit with the factor of the columns, however many there are."""
    names, stop = [str(i) for i in range(held + batch)], held + batch
    prior, base = CovariancePrior(site.moment, site.weight), site.base.double()
    form = GramForm.build(prior, 1.0, site.keys[:, :held], names[:held])

    def commit() -> Tensor:
        grown = form.append(prior, site.keys[:, held:stop], names)
        return base + grown.correction(site.values[:, :stop] - base @ site.keys[:, :stop])

    return commit


def _site(d: int, n: int, count: int) -> Site:
    """A random site with many edits."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tokens = draw(n, 4 * n)
    return Site(draw(d, n).float(), tokens @ tokens.mT / tokens.shape[1], n / 4, draw(n, count), draw(d, count))
