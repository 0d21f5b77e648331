"""How far two judges agree, and where they do not."""

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_edit.errors import EditError


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two judges' verdicts on the same answers, counted.

    Args:
        both_right: Right by both.
        both_wrong: Wrong by both.
        only_first: Right by the first alone.
        only_second: Right by the second alone.
    """

    both_right: int = 0
    both_wrong: int = 0
    only_first: int = 0
    only_second: int = 0

    def __add__(self, other: "Agreement") -> "Agreement":
        return Agreement(
            self.both_right + other.both_right,
            self.both_wrong + other.both_wrong,
            self.only_first + other.only_first,
            self.only_second + other.only_second,
        )

    @property
    def count(self) -> int:
        """Number of answers."""
        return self.both_right + self.both_wrong + self.only_first + self.only_second

    @property
    def share(self) -> float:
        """Share of answers with one verdict; nan of none."""
        return (self.both_right + self.both_wrong) / self.count if self.count else float("nan")

    @property
    def kappa(self) -> float:
        r"""Cohen's kappa, $(p_o - p_e) / (1 - p_e)$: agreement beyond what two judges as strict reach by chance.

        $p_o$ is `share`, $p_e$ the agreement expected of independent judges with the same shares of right verdicts. nan
        where $p_e = 1$: there each gives one verdict to all, and the same one.
        """
        if not self.count:
            return float("nan")
        first = (self.both_right + self.only_first) / self.count
        second = (self.both_right + self.only_second) / self.count
        chance = first * second + (1 - first) * (1 - second)
        return (self.share - chance) / (1 - chance) if chance < 1 else float("nan")

    def to_dict(self) -> dict[str, float]:
        """Plain numbers."""
        counts = {"both_right": self.both_right, "both_wrong": self.both_wrong}
        counts |= {"only_first": self.only_first, "only_second": self.only_second}
        return {"count": self.count, "share": self.share, "kappa": self.kappa, **counts}


def agreement(first: Sequence[bool], second: Sequence[bool]) -> Agreement:
    """Count two judges' verdicts on the same answers.

    Args:
        first: The first judge's verdicts.
        second: The second's, in the same order.

    Example:
        >>> seen = agreement([True, True, False, False], [True, False, False, False])
        >>> seen.share, seen.kappa
        (0.75, 0.5)
    """
    if len(first) != len(second):
        raise EditError(f"found {len(first)} and {len(second)} verdicts, expected as many of both judges")
    pairs = [(bool(one), bool(other)) for one, other in zip(first, second, strict=True)]
    return Agreement(*(pairs.count(pair) for pair in ((True, True), (False, False), (True, False), (False, True))))
