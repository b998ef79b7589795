"""The shapes and bounds that an algorithm needs to know of an environment."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Array, Float


UNBOUNDED = 1e30  # of a bound: float32 holds no sum and no product of larger ones, and they bound nothing


@dataclass(frozen=True)
class Spec:
    """An observation and a bounded action.

    An observation is kept as a row of `observation_size` numbers: float32, or for an image of this `shape` bytes
    (uint8), which only the network that reads it arranges as an image again.

    `low` and `high` are the action's bounds in the environment's own units, one pair per dimension. Of `choices`
    discrete actions, one is a vector of one number: 0 to `choices` - 1, its bounds, from whatever number on the
    environment counts them.
    """

    observation_size: int
    low: tuple[float, ...]
    high: tuple[float, ...]
    choices: int | None = None
    shape: tuple[int, ...] | None = None
    """of images; None where observations are vectors"""

    @classmethod
    def discrete(cls, observation_size: int, choices: int) -> Spec:
        """Of discrete actions: one whole number, 0 to `choices` - 1."""
        return cls(observation_size, (0.0,), (choices - 1.0,), choices)

    @property
    def action_size(self) -> int:
        return len(self.low)

    @property
    def images(self) -> bool:
        """Are observations images, in bytes?"""
        return self.shape is not None

    @property
    def dtype(self) -> Literal["float32", "uint8"]:
        """The type of an observation's numbers."""
        return "uint8" if self.images else "float32"

    def with_images(self, shape: tuple[int, ...] | None) -> Spec:
        """The same with images of this shape for observations; None changes nothing."""
        if shape is None:
            return self
        return replace(self, observation_size=math.prod(shape), shape=tuple(shape))

    def with_vector(self, size: int) -> Spec:
        """The same with so many float32 numbers for an observation."""
        return replace(self, observation_size=size, shape=None)

    def describe(self) -> str:
        """Its sizes and bounds, for people."""
        if self.choices is not None:
            actions = f"{self.choices} actions"
        elif len({*self.low}) == len({*self.high}) == 1:
            each = f"actions of {self.action_size} numbers, each" if self.action_size > 1 else "actions"
            actions = f"{each} from {self.low[0]:g} to {self.high[0]:g}"
        else:
            pairs = ", ".join(f"{low:g} to {high:g}" for low, high in zip(self.low, self.high, strict=True))
            actions = f"actions within {pairs}"
        if self.shape is not None:
            return f"images of {' x '.join(map(str, self.shape))} and {actions}"
        return f"{self.observation_size} observed numbers and {actions}"

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

    @property
    def middle(self) -> tuple[float, ...]:
        """The action that stands for the one before an episode's first step: halfway between the bounds; choice 0."""
        if self.choices is not None:
            return (0.0,)
        return tuple(0.5 * (low + high) for low, high in zip(self.low, self.high, strict=True))

    def with_unit_bounds(self) -> Spec:
        """The same with actions in [-1, 1]; choices stay as they are."""
        if self.choices is not None:
            return self
        return replace(self, low=(-1.0,) * self.action_size, high=(1.0,) * self.action_size)

    # --- the box of actions, on the device ---

    def bounds(self) -> tuple[Float[Array, " act"], Float[Array, " act"]]:
        """The least and the greatest action."""
        import jax.numpy as jnp  # here, so that a spec can be read without JAX

        return jnp.asarray(self.low), jnp.asarray(self.high)

    def box(self) -> tuple[Float[Array, " act"], Float[Array, " act"]]:
        """The box's centre and half of its width: u in [-1, 1] stands for `centre + half * u`."""
        low, high = self.bounds()
        return 0.5 * (low + high), 0.5 * (high - low)

    def normalise(self, actions: Float[Array, "*batch act"]) -> Float[Array, "*batch act"]:
        """Actions in units of their bounds, [-1, 1]; 0 where the bounds are equal; choices as they are."""
        import jax.numpy as jnp

        if self.choices is not None:
            return actions
        low, high = self.bounds()
        return jnp.where(high > low, (2 * actions - low - high) / jnp.where(high > low, high - low, 1), 0)

    def denormalise(self, units: Float[Array, "*batch act"]) -> Float[Array, "*batch act"]:
        """The inverse of `normalise`: actions in the environment's units."""
        if self.choices is not None:
            return units
        centre, half = self.box()
        return centre + half * units

    def clip(self, actions: Float[Array, "*batch act"]) -> Float[Array, "*batch act"]:
        """Actions, clipped to their bounds."""
        import jax.numpy as jnp

        return jnp.clip(actions, *self.bounds())


def convert_actions(actions: Float[Array, "*batch act"], given: Spec, target: Spec) -> Float[Array, "*batch act"]:
    """Actions in the units of the spec `given`, in those of the `target`: as they are where these are the same."""
    same = (given.low, given.high, given.choices) == (target.low, target.high, target.choices)
    return actions if same else target.denormalise(given.normalise(actions))
