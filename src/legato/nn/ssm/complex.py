"""Complex numbers as pairs of real arrays."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class Complex(NamedTuple):
    """re + i im."""

    re: Array
    im: Array

    def __mul__(self, other: Complex) -> Complex:  # type: ignore[override]
        return Complex(self.re * other.re - self.im * other.im, self.re * other.im + self.im * other.re)

    def __add__(self, other: Complex) -> Complex:  # type: ignore[override]
        return Complex(self.re + other.re, self.im + other.im)

    def scale(self, by: Array | float) -> Complex:
        return Complex(self.re * by, self.im * by)


def pair(array: Float[Array, "*shape 2"]) -> Complex:
    return Complex(array[..., 0], array[..., 1])


def both(x: Complex, y: Complex) -> Array:
    """2 Re sum_n x_n y_n over the last axis: the sum over both modes of each conjugate pair."""
    return 2 * jnp.sum(x.re * y.re - x.im * y.im, axis=-1)


def reset_states(x: Complex, reset: Array | None, axes: int) -> Complex:
    """The states, 0 where they are `reset`; a state has so many `axes`."""
    if reset is None:
        return x
    kept = ~reset.reshape(*reset.shape, *(1,) * axes)
    return Complex(jnp.where(kept, x.re, 0), jnp.where(kept, x.im, 0))
