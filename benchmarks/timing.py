"""Timing by turns: A B A B, and what comes out as ratios with their spread.

A ratio is taken within a round, between neighbours in time, so whatever else the machine does meanwhile slows both
sides. This file knows clocks and callables; it knows nothing of what is timed.
"""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Way = Callable[[], float]
"""Does the work once and returns the seconds that count."""

Clock = Callable[[], float]
"""Tells seconds: `time.perf_counter`, or `time.process_time` where other processes compete for the cores."""


@dataclass(frozen=True, slots=True)
class Row:
    """One way of doing something against the plain way.

    Args:
        benchmark: Name of the benchmark.
        way: What was timed.
        against: The plain way, timed in the same rounds.
        ratio: Median over rounds of time of the way / time of the plain way; below 1 the way is faster.
        low: Lower quartile of the ratio.
        high: Upper quartile of the ratio.
        seconds: Median time of the way.
        against_seconds: Median time of the plain way.
        rounds: Number of rounds.
        overhead: Whether the way does more work than the plain one, so that the ratio says what that costs.
        aim: What the ratio should stay under.
        unit: What `seconds` and `against_seconds` are in.
        details: What a picture needs to know besides.
    """

    benchmark: str
    way: str
    against: str
    ratio: float
    low: float
    high: float
    seconds: float
    against_seconds: float
    rounds: int
    overhead: bool = False
    aim: float | None = None
    unit: str = "s"
    details: dict[str, float | str] = field(default_factory=dict)


def stopwatch(work: Callable[[], object], clock: Clock, parts: int = 1) -> Way:
    """A way whose seconds are those of the whole call, or of an equal part of it.

    Args:
        work: What to time.
        clock: By which clock.
        parts: How many equal things it does, where ways do different numbers of them.
    """

    def way() -> float:
        begin = clock()
        work()
        return (clock() - begin) / parts

    return way


def compare(
    benchmark: str,
    ways: Mapping[str, Way],
    rounds: int,
    overhead: bool = False,
    aims: Mapping[str, float] | None = None,
) -> list[Row]:
    """Run all ways in turn, round after round, and compare each with the first.

    Nothing is run to warm up: as a rule the caller has run every way before, to see that they agree.

    Args:
        benchmark: Name of the benchmark.
        ways: Ways by name, the plain one first.
        rounds: How often each is run.
        overhead: Whether the others do what the plain way does and something more.
        aims: What ratios should stay under, by name.
    """
    plain, *others = ways
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            seconds[name].append(way())
    rows = []
    for name in others:
        ratios = [ours / theirs for ours, theirs in zip(seconds[name], seconds[plain], strict=True)]
        low, ratio, high = statistics.quantiles(ratios, n=4, method="inclusive") if rounds > 1 else 3 * ratios
        medians = statistics.median(seconds[name]), statistics.median(seconds[plain])
        aim = (aims or {}).get(name)
        rows.append(Row(benchmark, name, plain, ratio, low, high, *medians, rounds, overhead, aim))
    return rows
