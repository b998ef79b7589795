"""Windows of K steps and whole episodes, drawn inside jit from episodes that lie on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
class BatchSpec:
    """The batch of an update from logs: `size` windows of `length` steps, or `size` whole episodes, cut after so
    many.
    """

    size: int
    length: int
    whole: bool = False
    bucket: int = 0
    """of whole episodes, which group of lengths they come from"""
    discount: float = 1.0
    """of returns-to-go, per primitive step"""


HALVINGS = 3  # the shortest bucket is as long as an eighth of the longest
FEWEST = 0.05  # of all steps: a bucket that held less would be compiled for little


class Episodes(eqx.Module):
    """Trajectories on the device, as the sampler needs them: one row per step."""

    observations: Float[Array, "steps obs"]
    actions: Float[Array, "steps act"] | Int[Array, " steps"]
    returns_to_go: Float[Array, " steps"]
    timesteps: Int[Array, " steps"]
    left: Int[Array, " steps"]
    """steps to the end of the episode, this one included"""
    grouped: Int[Array, " steps"] | None = None
    """rows, those of one bucket of episodes after those of another; None for a single bucket"""
    edges: Int[Array, " edges"] | None = None
    """where in `grouped` each bucket begins, and the number of steps"""

    def draw(self, key: PRNGKeyArray, batch_spec: BatchSpec) -> Window:
        """The batch of one update."""
        if batch_spec.whole:
            return sample_whole(self, key, batch_spec.size, batch_spec.length, batch_spec.bucket)
        return sample(self, key, batch_spec.size, batch_spec.length)


def buckets(lengths: Int[np.ndarray, " episodes"], batch_spec: BatchSpec) -> tuple[BatchSpec, ...]:
    """The batches of updates in turn, so that short episodes are not padded to the length of the longest.

    `batch_spec.length`, or the longest episode's length if that is shorter, is halved up to `HALVINGS` times. An
    episode belongs to the shortest of these that holds it, and a batch of half the length holds twice as many. Windows
    have one bucket.
    """
    if not batch_spec.whole:
        return (batch_spec,)
    longest = min(batch_spec.length, int(lengths.max()))
    kept, held = [], 0
    for length in sorted({-(-longest // 2**k) for k in range(1, HALVINGS + 1)} - {longest}):
        steps = int(lengths[lengths <= length].sum())
        if steps - held >= FEWEST * lengths.sum():
            kept.append(length)
            held = steps
    return tuple(
        replace(batch_spec, size=batch_spec.size * longest // length, length=length, bucket=i)
        for i, length in enumerate([*kept, longest])
    )


def episodes(data: Trajectories, gamma: float = 1.0, batch_specs: Sequence[BatchSpec] = ()) -> Episodes:
    """Put trajectories on the device, arranged for these draws. Without rewards the returns-to-go are zero."""
    lengths = data.lengths
    timesteps = logs.timesteps(data)
    togo = np.zeros(data.steps, np.float32) if data.rewards is None else logs.returns_to_go(data, gamma)
    left = np.repeat(lengths, lengths) - timesteps
    integer = jnp.int32
    grouped = edges = None
    if len(batch_specs) > 1:
        bounds = np.array([batch_spec.length for batch_spec in batch_specs[:-1]])
        bucket = np.repeat(np.searchsorted(bounds, lengths), lengths)
        grouped = jnp.asarray(np.argsort(bucket, kind="stable"), integer)
        edges = jnp.asarray(np.cumsum([0, *np.bincount(bucket, minlength=len(batch_specs))]), integer)
    return Episodes(
        jnp.asarray(data.observations),
        jnp.asarray(data.actions),
        jnp.asarray(togo),
        jnp.asarray(timesteps, integer),
        jnp.asarray(left, integer),
        grouped,
        edges,
    )


def bucket_of(data: Episodes, update: Int[Array, ""]) -> Int[Array, ""]:
    """Which bucket an update draws from: each as often as its share of the steps, for all seeds alike."""
    assert data.edges is not None
    step = jax.random.randint(jax.random.fold_in(jax.random.key(0), update), (), 0, data.edges[-1])
    return jnp.searchsorted(data.edges, step, side="right").astype(jnp.int32) - 1


def sample(data: Episodes, key: PRNGKeyArray, size: int, length: int) -> Window:
    """`size` windows of `length` steps whose first steps are drawn uniformly from all steps, with replacement.

    An episode is thus drawn in proportion to its length, and a window is short only where an episode ends.
    """
    return window(data, jax.random.randint(key, (size,), 0, len(data.left)), length)


def sample_whole(data: Episodes, key: PRNGKeyArray, size: int, length: int, bucket: int = 0) -> Window:
    """`size` episodes of a bucket, drawn in proportion to their lengths.

    Of an episode longer than `length` it is so many steps from a random one on.
    """
    k_step, k_start = jax.random.split(key)
    if data.grouped is None or data.edges is None:
        at = jax.random.randint(k_step, (size,), 0, len(data.left))
    else:
        at = data.grouped[jax.random.randint(k_step, (size,), data.edges[bucket], data.edges[bucket + 1])]
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
