"""The shapes and bounds that an algorithm needs to know of a world."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Spec:
    """A flat observation and a bounded action.

    `low` and `high` are the action's bounds in the environment's own units, one pair per dimension. Of `choices`
    discrete actions, one is a vector of one number: 0 to `choices` - 1, its bounds.
    """

    observation_size: int
    low: tuple[float, ...]
    high: tuple[float, ...]
    choices: int | None = None

    @classmethod
    def discrete(cls, observation_size: int, choices: int) -> Spec:
        return cls(observation_size, (0.0,), (choices - 1.0,), choices)

    @property
    def action_size(self) -> int:
        return len(self.low)
