"""A replay of whole episodes on the device, of which windows and whole episodes are sampled."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from legato.data import windows
from legato.data.recurrent_replay import Episode
from legato.data.spec import Spec
from legato.data.windows import Episodes, Window


class EpisodeReplay(eqx.Module):
    """`slots` episodes of at most `longest` steps each, slot after slot; a new one takes the slot of the oldest.

    Returns-to-go are always those that were earned, whatever was asked for while collecting.
    """

    episodes: Episodes
    """rows `[slots * longest, ...]`; of empty rows `left` is 0"""
    rewards: Float[Array, " rows"]
    lengths: Int[Array, " slots"]
    terminated: Bool[Array, " slots"]
    added: Int[Array, ""]
    """how many were ever added; the next takes slot added % slots"""

    @property
    def longest(self) -> int:
        return self.rewards.shape[-1] // self.lengths.shape[-1]


def width(spec: Spec) -> int:
    """Numbers of a step."""
    return spec.observation_size + spec.action_size + 4


def create(spec: Spec, slots: int, longest: int) -> EpisodeReplay:
    """Without an episode yet."""
    rows = slots * longest
    zeros, none = jnp.zeros(rows), jnp.zeros(rows, jnp.int32)
    empty = Episodes(jnp.zeros((rows, spec.observation_size)), jnp.zeros((rows, spec.action_size)), zeros, none, none)
    counts = jnp.zeros(slots, jnp.int32)
    return EpisodeReplay(empty, jnp.copy(zeros), counts, jnp.zeros(slots, bool), jnp.zeros((), jnp.int32))


def add(replay: EpisodeReplay, episode: Episode, gamma: float = 1.0) -> EpisodeReplay:
    """Put an episode into the next slot; no episode (0 steps) changes nothing.

    Of one longer than a slot only the beginning is kept, whose returns-to-go count the rest too.
    """
    longest, slots = replay.longest, replay.lengths.shape[0]
    steps = jnp.minimum(episode.steps, longest)
    slot, real = replay.added % slots, episode.steps > 0
    row = jnp.arange(longest)
    there = row < steps

    def fitted(array: Array) -> Array:
        array = array[:longest]
        array = jnp.pad(array, [(0, longest - len(array)), *[(0, 0)] * (array.ndim - 1)])
        return jnp.where(there.reshape(-1, *(1,) * (array.ndim - 1)), array, 0)

    def written(array: Array, new: Array) -> Array:
        old = jax.lax.dynamic_slice_in_dim(array, slot * longest, longest)
        return jax.lax.dynamic_update_slice_in_dim(array, jnp.where(real, new, old), slot * longest, 0)

    e = replay.episodes
    episodes = Episodes(
        written(e.observations, fitted(episode.observations)),
        written(e.actions, fitted(episode.actions)),
        written(e.returns_to_go, fitted(episode.returns_to_go(gamma))),
        written(e.timesteps, jnp.where(there, row, 0)),
        written(e.left, jnp.where(there, steps - row, 0)),
    )
    at = jnp.where(real, slot, slots)
    return EpisodeReplay(
        episodes,
        written(replay.rewards, fitted(episode.rewards)),
        replay.lengths.at[at].set(steps, mode="drop"),
        replay.terminated.at[at].set(episode.terminated & (steps == episode.steps), mode="drop"),
        replay.added + real,
    )


def returns(replay: EpisodeReplay) -> Float[Array, " slots"]:
    """What each episode earned, 0 in empty slots."""
    return replay.episodes.returns_to_go[:: replay.longest]


def sample_episodes(
    replay: EpisodeReplay, key: PRNGKeyArray, size: int, power: float = 1.0
) -> tuple[Window, Int[Array, " size"]]:
    """`size` whole episodes and their slots, drawn with replacement in proportion to their lengths to this power."""
    slot = jax.random.categorical(key, power * jnp.log(replay.lengths.astype(jnp.float32)), shape=(size,))
    return windows.window(replay.episodes, slot * replay.longest, replay.longest), slot


class WindowBatch(eqx.Module):
    """Windows with rewards and ends, as critics need them."""

    window: Window
    rewards: Float[Array, "batch K"]
    has_next: Bool[Array, "batch K"]
    """is the step after this one in the window?"""
    terminated: Bool[Array, "batch K"]
    """did the environment end the episode with this step?"""


def sample_windows(replay: EpisodeReplay, key: PRNGKeyArray, size: int, length: int) -> WindowBatch:
    """`size` windows whose first steps are drawn uniformly from all steps, with replacement."""
    until = jnp.cumsum(replay.lengths)
    step = jax.random.randint(key, (size,), 0, until[-1])
    slot = jnp.searchsorted(until, step, side="right")
    start = slot * replay.longest + step - (until[slot] - replay.lengths[slot])
    window = windows.window(replay.episodes, start, length)
    rows = jnp.where(window.mask, start[:, None] + jnp.arange(length), start[:, None])
    last = window.mask & (replay.episodes.left[rows] == 1)
    after = jnp.concatenate([window.mask[:, 1:], jnp.zeros((size, 1), bool)], axis=1)
    return WindowBatch(
        window,
        jnp.where(window.mask, replay.rewards[rows], 0),
        after & ~last,
        last & replay.terminated[slot][:, None],
    )
