"""When benchmarks are due: every so many edits, commits or validations.

Knows counts. Refuses to know what is measured.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning_edit.errors import StrategyError


@dataclass(slots=True)
class BenchmarkPlan:
    """A rhythm in edits, commits and validations, each of which may be None for never.

    Args:
        every_n_edits: Due whenever so many more edits have been made.
        every_n_commits: Due after each so many commits.
        every_n_validations: Due when each so many-th validation of training starts.
        commits: Commits so far.
        validations: Validations so far.
        due: Whether the commit under way is to be measured.
    """

    every_n_edits: int | None = None
    every_n_commits: int | None = None
    every_n_validations: int | None = 1
    commits: int = 0
    validations: int = 0
    due: bool = False

    def __post_init__(self) -> None:
        for name in ("every_n_edits", "every_n_commits", "every_n_validations"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise StrategyError(f"found {name}={value}, expected at least 1, or None for never")

    def next_commit(self, before: int, after: int) -> None:
        """A commit is about to be made; `take` says afterwards whether it is measured.

        Args:
            before: Edits so far.
            after: Edits when it has been made.
        """
        self.commits += 1
        by_commits = self.every_n_commits is not None and self.commits % self.every_n_commits == 0
        by_edits = self.every_n_edits is not None and before // self.every_n_edits < after // self.every_n_edits
        self.due = by_commits or by_edits

    def take(self) -> bool:
        """Whether the commit that was just made is to be measured; asked once."""
        due, self.due = self.due, False
        return due

    def next_validation(self) -> bool:
        """Whether the validation that starts is to be measured."""
        self.validations += 1
        return self.every_n_validations is not None and self.validations % self.every_n_validations == 0

    def state_dict(self) -> dict[str, Any]:
        """How far it got."""
        return {"commits": self.commits, "validations": self.validations}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another plan stood.

        Args:
            state: What `state_dict` gave; other entries are not looked at.
        """
        self.commits, self.validations = state["commits"], state["validations"]
