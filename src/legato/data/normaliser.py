"""Observations in units of their own spread: the statistics of a dataset, kept with the policy that learnt from it."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

CHUNK = 1 << 16  # rows read at once, so that a memory-mapped set does not have to fit


class Normaliser(eqx.Module):
    """(x - mean) / deviation, each number of an observation by its own. No gradient changes the statistics.

    For images they are one number each, 0 and 255: bytes become numbers from 0 to 1.
    """

    mean: Float[Array, " obs"] | Float[Array, " 1"]
    deviation: Float[Array, " obs"] | Float[Array, " 1"]

    def __call__(self, x: Float[Array, "*batch obs"]) -> Float[Array, "*batch obs"]:
        mean, deviation = jax.lax.stop_gradient((self.mean, self.deviation))
        return (x - mean) / deviation


def of(observations: Float[np.ndarray, "steps obs"]) -> Normaliser:
    """The statistics of all rows; the deviation is 1e-6 larger (Chen et al. 2021).

    It is 1 for a number that never changes, or by rounding only: in the data it becomes 0 all the same, and where it
    moves after all it is no number of a thousand deviations.
    """
    if observations.dtype == np.uint8:
        return of_bytes()
    mean, deviation = _moments(observations)
    unit = np.where(is_constant(mean, deviation), 1.0, deviation + 1e-6)
    return Normaliser(jnp.asarray(mean, jnp.float32), jnp.asarray(unit, jnp.float32))


def of_some(rows: Float[Array, "rows n"], counted: Bool[Array, "rows n"] | Bool[Array, "rows 1"]) -> Normaliser:
    """Inside `jit`: the statistics of the numbers that are counted; the deviation of a constant is 1."""
    count = jnp.maximum(counted.sum(axis=0), 1)
    mean = jnp.where(counted, rows, 0).sum(axis=0) / count
    square = (jnp.where(counted, rows - mean, 0) ** 2).sum(axis=0) / count
    return Normaliser(mean, jnp.where(square > 1e-12, jnp.sqrt(square), 1))


def constant_numbers(observations: Float[np.ndarray, "steps obs"]) -> list[int]:
    """Which numbers of an observation never change, or by rounding only. Of images none are named."""
    if observations.dtype == np.uint8:
        return []
    return np.flatnonzero(is_constant(*_moments(observations))).tolist()


def is_constant(mean: Float[np.ndarray, " obs"], deviation: Float[np.ndarray, " obs"]) -> Bool[np.ndarray, " obs"]:
    """Whether numbers deviate by less than float32 tells apart."""
    return deviation <= np.finfo(np.float32).eps * np.abs(mean)


def _moments(observations: Float[np.ndarray, "steps obs"]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of all rows."""
    parts = range(0, len(observations), CHUNK)
    mean = sum(observations[i : i + CHUNK].sum(axis=0, dtype=np.float64) for i in parts) / len(observations)
    square = sum(((observations[i : i + CHUNK] - mean) ** 2).sum(axis=0) for i in parts) / len(observations)
    return np.asarray(mean), np.sqrt(square)


def none(size: int) -> Normaliser:
    """Leaves observations as they are."""
    return Normaliser(jnp.zeros(size), jnp.ones(size))


def of_bytes() -> Normaliser:
    """Of images, whatever they show."""
    return Normaliser(jnp.zeros(1), jnp.full(1, 255.0))
