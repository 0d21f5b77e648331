"""Single commits and restrictions against the dense forms of published scripts.

AlphaEdit: the scripts solve (P (H + K K') + L2 I) X = P K R' with d right-hand sides, in float32; the ledger grows a
factor of the columns it holds, in float64, and is compared with the dense solve in either precision. MEMIT: they solve
with lambda M + K K' in float64, from nothing; the ledger uses the prior's factor, made once. Ours is timed twice: for
the update of the commit, and for the whole edited weight S, which an editor reads to deploy it and which takes products
with all columns. PRUNE: the scripts decompose update and weight whole; ours looks at the upper ends of the spectra.
RECT: they sort all entries; ours counts them. In each pair the results agree, to what the precision allows. On a wider
site, nearer to those of large models, only the solves as published are timed, once.

Run it alone: `python -m benchmarks solves`
"""

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.setting import Sizes
from benchmarks.timing import Clock, Row, compare, stopwatch
from lightning_edit.algebra import CovariancePrior, NullSpacePrior, Prior, SiteLedger, SpectrumLimit, TopKRelativeChange

L2 = 10.0
Pair = tuple[str, Callable[[], Tensor], Callable[[], Tensor], float, float | None]  # name, ways, tolerance, aim


def measure(sizes: Sizes, clock: Clock) -> list[Row]:
    """Compare commits and restrictions.

    Args:
        sizes: Shapes and numbers of columns.
        clock: By which clock.
    """
    rows = []
    every = commits(sizes.solve_shape, sizes.solve_held, sizes.solve_batch)
    for pair in (*every, *restrictions(sizes)):
        rows += _compare(pair, clock, sizes.solve_rounds)
    every.clear()  # before the wider site takes its memory
    wide = commits(sizes.solve_wide_shape, sizes.solve_held, sizes.solve_batch)
    for pair in [pair for pair in wide if pair[0].endswith("as published")]:
        rows += _compare(pair, clock, 1)
    return rows


def _compare(pair: Pair, clock: Clock, rounds: int) -> list[Row]:
    """Time both ways, and see that they agree."""
    name, plain, ours, tolerance, aim = pair
    found: dict[str, Tensor] = {}
    ways = {
        f"{name}, dense": stopwatch(lambda: found.update(dense=plain()), clock),
        f"{name}, ours": stopwatch(lambda: found.update(ours=ours()), clock),
    }
    rows = compare("solves", ways, rounds, aims={} if aim is None else {f"{name}, ours": aim})
    one, other = found["dense"].double(), found["ours"].double()
    assert float((one - other).norm()) <= tolerance * float(one.norm()), f"{name}: the ways disagree"
    return rows


def commits(shape: tuple[int, int], held: int, more: int) -> list[Pair]:
    """A commit of AlphaEdit and one of MEMIT, each as the update it adds to the weight (d, n).

    Args:
        shape: d and n of the site.
        held: How many columns it holds.
        more: How many come.
    """
    d, n = shape
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    used = torch.linalg.qr(draw(n, n // 7)).Q  # the share of directions that text uses in Llama-3-8B
    spread, tokens = torch.logspace(0, -2, n, dtype=torch.float64), draw(n, n // 8)
    moment = tokens @ tokens.mT / n + spread.diag()
    keys, values, base = draw(n, held + more), draw(d, held + more), draw(d, n).float()
    null = NullSpacePrior.from_state({"fingerprint": "random", "parts": {"used": used, "l2": L2}})
    before = {"alphaedit": _held(base, null, keys[:, :held], values[:, :held])}
    before["memit"] = _held(base, CovariancePrior(moment, n / 4), keys[:, :held], values[:, :held])
    new, old = keys[:, held:], keys[:, :held]
    residuals = {name: values[:, held:] - ledger.solution() @ new for name, ledger in before.items()}

    exact = (torch.eye(n, dtype=torch.float64) - used @ used.mT, old @ old.mT, residuals["alphaedit"], new)
    rounded = tuple(part.float() for part in exact)
    covariance = n / 4 * moment + old @ old.mT

    def alphaedit(projector: Tensor, history: Tensor, right: Tensor, keys: Tensor) -> Tensor:
        matrix = projector @ (history + keys @ keys.mT)
        matrix.diagonal().add_(L2)
        update: Tensor = torch.linalg.solve(matrix, projector @ keys @ right.mT).mT
        return update

    def memit() -> Tensor:
        update: Tensor = residuals["memit"] @ torch.linalg.solve(covariance + new @ new.mT, new).mT
        return update

    def step(name: str) -> Tensor:
        ledger, snapshot = before[name], before[name].snapshot()
        ledger.append([f"new {i}" for i in range(more)], new, values[:, held:])
        update = ledger.increment(snapshot, started[name])
        ledger.restore(snapshot)
        return update

    def read(name: str) -> Tensor:
        ledger, snapshot = before[name], before[name].snapshot()
        ledger.append([f"new {i}" for i in range(more)], new, values[:, held:])
        update = ledger.solution() - started[name]
        ledger.restore(snapshot)
        return update

    started = {name: ledger.solution() for name, ledger in before.items()}
    what = f"n = {n}, {more} onto {held}"
    return [
        (f"AlphaEdit, {what}", lambda: alphaedit(*exact), lambda: step("alphaedit"), 1e-8, 1 / 50),
        (
            f"AlphaEdit, {what}, float32, as published",
            lambda: alphaedit(*rounded),
            lambda: step("alphaedit"),
            1e-3,
            None,
        ),
        (f"MEMIT, {what}, as published", memit, lambda: step("memit"), 1e-8, 1 / 10),
        (f"AlphaEdit, {what}, whole S", lambda: alphaedit(*exact), lambda: read("alphaedit"), 1e-8, None),
        (f"MEMIT, {what}, whole S", memit, lambda: read("memit"), 1e-8, None),
    ]


def restrictions(sizes: Sizes) -> list[Pair]:
    """PRUNE and RECT on an update of low rank, some of whose singular values are clipped.

    Args:
        sizes: Shape and rank.
    """
    (d, n), rank = sizes.restricted_shape, sizes.restricted_rank
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(d, n, generator=generator, dtype=torch.float64)
    left, right = (torch.randn(size, rank, generator=generator, dtype=torch.float64) for size in (d, n))
    update = left * torch.logspace(0.5, -1, rank, dtype=torch.float64) @ right.mT
    update *= 2 * torch.linalg.matrix_norm(weight, 2) / torch.linalg.matrix_norm(update, 2)

    def prune() -> Tensor:
        limit = torch.linalg.svd(weight, full_matrices=False).S[0]
        u, values, vt = torch.linalg.svd(update, full_matrices=False)
        pruned: Tensor = (u * torch.where(values > limit, values.log() - limit.log() + limit, values)) @ vt
        return pruned

    def rect() -> Tensor:
        change = update.abs() / (weight.abs() + 1e-8)
        threshold = change.flatten().sort().values[int(0.8 * change.numel())]
        return torch.where(change >= threshold, update, 0.0)

    spectrum, largest = SpectrumLimit(), TopKRelativeChange(0.2)
    return [
        (f"PRUNE, {d} x {n}, rank {rank}", prune, lambda: spectrum(update, weight), 1e-9, None),
        (f"RECT, {d} x {n}", rect, lambda: largest(update, weight), 0.0, None),
    ]


def _held(base: Tensor, prior: Prior, keys: Tensor, values: Tensor) -> SiteLedger:
    """A ledger that holds columns."""
    ledger = SiteLedger(base, prior)
    ledger.append([str(i) for i in range(keys.shape[1])], keys, values)
    return ledger
