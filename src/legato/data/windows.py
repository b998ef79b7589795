"""Windows of K steps and whole episodes, drawn inside jit from episodes that lie on the device."""

from __future__ import annotations

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from legato.data import trajectories as logs
from legato.data.trajectories import Trajectories


class Window(eqx.Module):
    """K consecutive steps of one episode. Where the episode ends before, the rest is zero and `mask` is False."""

    observations: Float[Array, "*batch K obs"]
    actions: Float[Array, "*batch K act"] | Int[Array, "*batch K"]
    previous: Float[Array, "*batch K act"] | Int[Array, "*batch K"]
    """the actions before, zeros (the first choice) where the episode begins"""
    returns_to_go: Float[Array, "*batch K"]
    """what the episode still earned from each step on, also beyond the window"""
    timesteps: Int[Array, "*batch K"]
    """steps since the episode began"""
    mask: Bool[Array, "*batch K"]


@dataclass(frozen=True)
class Draw:
    """What an update eats: `size` windows of `length` steps, or `size` whole episodes, cut after so many."""

    size: int
    length: int
    whole: bool = False


class Episodes(eqx.Module):
    """Trajectories on the device, as the sampler needs them: one row per step."""

    observations: Float[Array, "steps obs"]
    actions: Float[Array, "steps act"] | Int[Array, " steps"]
    returns_to_go: Float[Array, " steps"]
    timesteps: Int[Array, " steps"]
    left: Int[Array, " steps"]
    """steps to the end of the episode, this one included"""


def episodes(data: Trajectories, gamma: float = 1.0) -> Episodes:
    """Put trajectories on the device. Without rewards the returns-to-go are zero."""
    lengths = data.lengths
    timesteps = np.arange(data.steps) - np.repeat(data.offsets[:-1], lengths)
    togo = np.zeros(data.steps, np.float32) if data.rewards is None else logs.returns_to_go(data, gamma)
    left = np.repeat(lengths, lengths) - timesteps
    integer = jnp.int32
    return Episodes(
        jnp.asarray(data.observations),
        jnp.asarray(data.actions),
        jnp.asarray(togo),
        jnp.asarray(timesteps, integer),
        jnp.asarray(left, integer),
    )


def draw(data: Episodes, key: PRNGKeyArray, what: Draw) -> Window:
    """One update's food."""
    return (sample_whole if what.whole else sample)(data, key, what.size, what.length)


def sample(data: Episodes, key: PRNGKeyArray, size: int, length: int) -> Window:
    """`size` windows of `length` steps whose first steps are drawn uniformly from all steps, with replacement.

    An episode is thus drawn in proportion to its length, and a window is short only where an episode ends.
    """
    return window(data, jax.random.randint(key, (size,), 0, len(data.left)), length)


def sample_whole(data: Episodes, key: PRNGKeyArray, size: int, length: int) -> Window:
    """`size` episodes, drawn in proportion to their lengths; of a longer one, `length` steps from a random one on."""
    k_step, k_start = jax.random.split(key)
    at = jax.random.randint(k_step, (size,), 0, len(data.left))
    spare = jnp.maximum(data.timesteps[at] + data.left[at] - length, 0)
    return window(data, at - data.timesteps[at] + jax.random.randint(k_start, (size,), 0, spare + 1), length)


def window(data: Episodes, start: Int[Array, "*batch"], length: int) -> Window:
    """The windows that begin at these rows."""
    step = jnp.arange(length)
    mask = step < data.left[start][..., None]
    rows = jnp.where(mask, start[..., None] + step, start[..., None])  # never into the next episode

    def gathered(array: Array, valid: Array = mask, rows: Array = rows) -> Array:
        found = array[rows]
        return jnp.where(valid.reshape(*valid.shape, *(1,) * (found.ndim - valid.ndim)), found, 0)

    timesteps = gathered(data.timesteps)
    return Window(
        observations=gathered(data.observations),
        actions=gathered(data.actions),
        previous=gathered(data.actions, mask & (timesteps > 0), jnp.maximum(rows - 1, 0)),
        returns_to_go=gathered(data.returns_to_go),
        timesteps=timesteps,
        mask=mask,
    )
