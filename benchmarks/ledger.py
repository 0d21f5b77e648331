"""Appending to the ledger against solving densely at every commit.

A site takes N edits in batches. The plain way keeps C = w M + K K^T (n x n) as published scripts do: at every batch it
adds the new keys and solves (V - W K) K^T C^-1 anew, in float64 like ours. Ours grows the ledger's factor by the new
columns and reads the edited weight. Measured: the last commit, and a whole run of commits, in which ours also pays for
the prior (one factorisation of w M), which the plain way does not need.

Run it alone: `python -m benchmarks ledger`
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.setting import Sizes
from benchmarks.timing import Clock, Row, compare, stopwatch
from lightning_edit.algebra import CovariancePrior, SiteLedger


@dataclass(frozen=True, slots=True)
class Site:
    """One site with its edits.

    Args:
        base: W (d, n).
        moment: M (n, n), the second moment of ordinary keys.
        weight: w.
        keys: K (n, N).
        values: V (d, N).
    """

    base: Tensor
    moment: Tensor
    weight: float
    keys: Tensor
    values: Tensor

    def dense(self, before: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """The edited weight after another batch, solved from nothing, and C with the batch in it.

        Args:
            before: C (n, n) without the batch.
            start: The batch's first edit.
            stop: Where the batch ends.
        """
        new, keys, values = self.keys[:, start:stop], self.keys[:, :stop], self.values[:, :stop]
        matrix = before + new @ new.mT  # C, with noise 1
        base = self.base.double()
        return base + torch.linalg.solve(matrix, keys @ (values - base @ keys).mT).mT, matrix

    def append(self, ledger: SiteLedger, start: int, stop: int) -> Tensor:
        """The edited weight after another batch.

        Args:
            ledger: A ledger that holds the edits before it.
            start: The batch's first edit.
            stop: Where the batch ends.
        """
        names = [str(i) for i in range(start, stop)]
        ledger.append(names, self.keys[:, start:stop], self.values[:, start:stop])
        return ledger.solution()


def measure(sizes: Sizes, clock: Clock) -> list[Row]:
    """Compare a commit, and all commits of a run.

    Args:
        sizes: Shape of the site, and how many edits come in which batches.
        clock: By which clock.
    """
    site, step, last = make_site(sizes), sizes.edits_per_commit, sizes.edits
    commits = range(0, last, step)
    ledger = SiteLedger(site.base, CovariancePrior(site.moment, site.weight))
    site.append(ledger, 0, last - step)
    before, old = ledger.snapshot(), site.keys[:, : last - step]
    matrix = site.weight * site.moment + old @ old.mT

    def dense_commit() -> Tensor:
        return site.dense(matrix, last - step, last)[0]

    def commit() -> Tensor:
        ledger.restore(before)
        return site.append(ledger, last - step, last)

    def dense_run() -> Tensor:
        solution, running = site.base, site.weight * site.moment
        for start in commits:
            solution, running = site.dense(running, start, start + step)
        return solution

    def run() -> Tensor:
        fresh = SiteLedger(site.base, CovariancePrior(site.moment, site.weight))
        return [site.append(fresh, start, start + step) for start in commits][-1]

    exact = dense_run()
    for other in (dense_commit(), commit(), run()):
        assert float((other - exact).norm() / exact.norm()) < 1e-9, "the ledger and the dense solve disagree"
    rows = []
    pairs = (
        (f"commit of {step} onto {last - step}", dense_commit, commit),
        (f"{len(commits)} commits", dense_run, run),
    )
    for what, plain, ours in pairs:
        ways = {f"{what}, dense": stopwatch(plain, clock), f"{what}, ledger": stopwatch(ours, clock)}
        rows += compare("ledger", ways, sizes.ledger_rounds)
    return rows


def make_site(sizes: Sizes) -> Site:
    """A random site whose keys are as unevenly spread as those of a model.

    Args:
        sizes: Its shape.
    """
    n, d, generator = sizes.inner, sizes.width, torch.Generator().manual_seed(0)
    spread = torch.logspace(0, -2, n, dtype=torch.float64)[:, None]

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tokens = spread * draw(n, 4 * n)
    moment = tokens @ tokens.mT / tokens.shape[1]
    return Site(draw(d, n).float(), moment, n / 4, spread * draw(n, sizes.edits), draw(d, sizes.edits))
