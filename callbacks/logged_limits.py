"""Limits on what a run logs: while a metric is above its limit, nothing may be edited.

Knows log keys and numbers. Refuses to know who logs them, and what becomes of the edits.
"""

import math
from collections.abc import Mapping
from typing import Any

from lightning_edit.errors import StrategyError


class LoggedLimits:
    """The largest values that logged metrics may have, and the last ones that were seen.

    Args:
        limits: Limit by log key.
    """

    def __init__(self, limits: Mapping[str, float]) -> None:
        if unlimited := sorted(key for key, limit in limits.items() if math.isnan(limit)):
            raise StrategyError(f"found limits that are no numbers for {', '.join(unlimited)}; expected numbers")
        self.limits = dict(limits)
        self._seen: dict[str, float] = {}

    def read(self, logged: Mapping[str, Any]) -> None:
        """Note the newest values.

        Args:
            logged: Numbers by log key, such as `Trainer.callback_metrics`.
        """
        self._seen |= {key: float(logged[key]) for key in self.limits if key in logged}

    def exceeded(self) -> str | None:
        """Which limit stands in the way of edits, in words; None where none does."""
        for key, limit in self.limits.items():
            value = self._seen.get(key)
            if value is not None and not value <= limit:  # nan is too much as well
                return f"{key} was logged as {value:.4g}, {limit:g} is allowed"
        return None

    def unseen(self) -> list[str]:
        """Keys that were never logged, so that their limits stood for nothing."""
        return sorted(set(self.limits) - set(self._seen))

    def state_dict(self) -> dict[str, float]:
        """The last values, which no checkpoint of the Trainer holds."""
        return dict(self._seen)

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on with values that were seen before.

        Args:
            state: What `state_dict` gave.
        """
        self._seen = dict(state)
