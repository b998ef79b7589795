"""The shapes and bounds that an algorithm needs to know of a world."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


@dataclass(frozen=True)
class Spec:
    """A flat observation and a bounded action.

    `low` and `high` are the action's bounds in the environment's own units, one pair per dimension. Of `choices`
    discrete actions, one is a vector of one number: 0 to `choices` - 1, its bounds, from whatever number on the
    environment counts them.
    """

    observation_size: int
    low: tuple[float, ...]
    high: tuple[float, ...]
    choices: int | None = None

    @classmethod
    def discrete(cls, observation_size: int, choices: int) -> Spec:
        return cls(observation_size, (0.0,), (choices - 1.0,), choices)

    def unit(self, actions: Float[Array, "*batch act"]) -> Float[Array, "*batch act"]:
        """Continuous actions in units of their bounds, [-1, 1]; 0 where both bounds are one number."""
        low, high = jnp.asarray(self.low), jnp.asarray(self.high)
        if any(a == b for a, b in zip(self.low, self.high, strict=True)):
            fixed = low == high
            return jnp.where(fixed, 0, (2 * actions - low - high) / jnp.where(fixed, 1, high - low))
        return (2 * actions - low - high) / (high - low)

    @property
    def action_size(self) -> int:
        return len(self.low)

    @cached_property
    def float32_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The least and the greatest float32 within the bounds, `[act]` each.

        What lies between them lies within `low` and `high` as a float64 too. Where no float32 does, as between equal
        bounds, both are the one next to them.
        """
        low, high = np.array(self.low), np.array(self.high)
        with np.errstate(over="ignore"):
            least, greatest = low.astype(np.float32), high.astype(np.float32)
            least = np.where(least < low, np.nextafter(least, np.float32(np.inf)), least)
            greatest = np.where(greatest > high, np.nextafter(greatest, np.float32(-np.inf)), greatest)
            nearest = (0.5 * low + 0.5 * high).astype(np.float32)
        empty = least > greatest
        return np.where(empty, nearest, least), np.where(empty, nearest, greatest)
