"""The shapes and bounds that an algorithm needs to know of a world."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Spec:
    """A flat observation and a bounded continuous action.

    `low` and `high` are the action's bounds in the environment's own units, one pair per dimension.
    """

    observation_size: int
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def action_size(self) -> int:
        return len(self.low)
