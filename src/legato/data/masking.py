"""Observations of which every number may be missing: a set partially observed (Janner et al. 2021, section 4.1).

Each number of each step is hidden by a coin of its own. What is hidden does not depend on the environment: the masks
are independent of everything, so the numbers that are seen are distributed as all of them are.
"""

from __future__ import annotations

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from legato.data.trajectories import Trajectories
from legato.errors import LegatoError

BELOW = 0.02  # of a column's range: how far below its least number the mark lies


class Mask(eqx.Module):
    """How numbers are hidden: a mark stands in their place, which lies below all that the column holds.

    Of a hundred equally wide bins it has the lowest for itself: a token that says "missing".
    """

    low: Float[Array, " obs"]
    """the least number of each column"""
    mark: Float[Array, " obs"]
    mean: Float[Array, " obs"]
    """of each column"""
    share: float = eqx.field(static=True)
    """how likely a number is hidden"""

    def missing(self, s: Float[Array, "*batch obs"]) -> Bool[Array, "*batch obs"]:
        """Which numbers are marks. Half-way to the mark counts as one."""
        return s < 0.5 * (self.low + self.mark)

    def hide(self, s: Float[Array, "*batch obs"], key: PRNGKeyArray) -> Float[Array, "*batch obs"]:
        """The same with fresh masks; marks that are there stay."""
        return jnp.where(jax.random.bernoulli(key, self.share, s.shape), self.mark, s)

    def filled(self, s: Float[Array, "*batch obs"]) -> Float[Array, "*batch obs"]:
        """The column's mean in the place of every mark."""
        return jnp.where(self.missing(s), self.mean, s)

    def read(self, s: Float[Array, "*batch obs"]) -> Float[Array, "*batch twice"]:
        """For a network of real numbers: filled, and beside it which ones were missing, 0 or 1."""
        return jnp.concatenate([self.filled(s), self.missing(s).astype(s.dtype)], axis=-1)


def hide(data: Trajectories, share: float = 0.5, seed: int = 0) -> tuple[Trajectories, Mask]:
    """A set in which every number of every observation is hidden with probability `share`, and how it was hidden.

    Raises `LegatoError` for a share outside [0, 1).
    """
    if not 0 <= share < 1:
        raise LegatoError(f"the share that is hidden lies in [0, 1); {share:g} was given")
    rng = np.random.default_rng(seed)
    s = np.asarray(data.observations, np.float32)
    low, high = s.min(axis=0), s.max(axis=0)
    mark = (low - BELOW * np.maximum(high - low, 1e-3)).astype(np.float32)
    hidden = np.where(rng.random(s.shape) < share, mark, s)
    ends = data.final_observations
    if ends is not None:
        ends = np.where(rng.random(ends.shape) < share, mark, ends)
    mask = Mask(jnp.asarray(low), jnp.asarray(mark), jnp.asarray(s.mean(axis=0)), share)
    return replace(data, observations=hidden, final_observations=ends), mask
