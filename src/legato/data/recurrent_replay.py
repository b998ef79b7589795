"""A recurrent replay with stored states (as in R2D2): a ring of primitive steps, each with the policy's state before
it.

An episode of T steps takes T + 1 rows: its last row, which is no step of its own, holds the observation after the last
step. What follows a row is the row after it, so every state is kept once.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from legato.data import returns_to_go, ring
from legato.data.spec import Spec
from legato.errors import LegatoError


class Episode(eqx.Module):
    """One episode as it was played, padded at its end. Of T steps, T + 1 observations count; the rest is padding."""

    observations: Float[Array, "rows obs"]
    actions: Float[Array, "rows act"]
    """as executed, in the environment's units"""
    rewards: Float[Array, " rows"]
    steps: Int[Array, ""]
    """T; 0 for no episode at all"""
    terminated: Bool[Array, ""]
    """did the environment end it, or a time limit?"""
    target: Float[Array, ""]
    """the target return at its beginning"""

    @property
    def row(self) -> Int[Array, " rows"]:
        return jnp.arange(len(self.rewards))

    def returns_to_go(self, gamma: float = 1.0) -> Float[Array, " rows"]:
        """What was earned from each step on; 0 after the last."""
        return returns_to_go.from_rewards(self._earned, gamma)

    def target_returns_to_go(self, gamma: float = 1.0) -> Float[Array, " rows"]:
        """The return-to-go that the policy read at each step: what was asked for, less what was earned before it."""
        return returns_to_go.from_target(self.target, self._earned, gamma)

    @property
    def _earned(self) -> Float[Array, " rows"]:
        return jnp.where(self.row < self.steps, self.rewards, 0)


class StateTransition(eqx.Module):
    """A step with its stored state: one row of the replay, or many."""

    observation: Float[Array, "*batch obs"]
    previous: Float[Array, "*batch act"]
    """the action before, in units of its bounds; zeros at an episode's beginning"""
    action: Float[Array, "*batch act"]
    """in units of its bounds"""
    reward: Float[Array, "*batch"]
    ret: Float[Array, "*batch"]
    """the return-to-go that the policy read"""
    continues: Float[Array, "*batch"]
    """0 only where the environment ended the episode with this step"""
    valid: Float[Array, "*batch"]
    """is this a step, or the end of an episode?"""
    state: Float[Array, "*batch state"]
    """the policy's state before this observation"""


class RecurrentReplay(eqx.Module):
    """The newest `capacity` rows; older ones are overwritten."""

    rows: Float[Array, "capacity width"]
    added: Int[Array, ""]
    """how many were ever added; the next goes to added % capacity"""
    spec: Spec = eqx.field(static=True)

    @property
    def capacity(self) -> int:
        return self.rows.shape[-2]

    @property
    def size(self) -> Int[Array, ""]:
        return jnp.minimum(self.added, self.capacity)


def width(spec: Spec, state: int) -> int:
    """Numbers of a row."""
    return spec.observation_size + 2 * spec.action_size + 4 + state


def create(spec: Spec, state: int, capacity: int) -> RecurrentReplay:
    """An empty ring for states of `state` numbers."""
    return RecurrentReplay(jnp.zeros((capacity, width(spec, state))), jnp.zeros((), jnp.int32), spec)


def checked_size(rows: int, row: int, limit: float, capacity: int, *, smaller: str) -> int:
    """The bytes that so many rows of so many numbers take, of a replay of this `capacity`.

    Raises `LegatoError` where that is more than `limit` bytes, with what would fit; `smaller` says what else makes it
    smaller.
    """
    needed = 4 * rows * row
    if needed > limit:
        least = f"lower `capacity` to {int(limit // (4 * row))}, " if rows == capacity else ""
        raise LegatoError(
            f"a replay of {rows} steps takes {needed / 2**30:.1f} GiB ({4 * row / 1024:.1f} KiB each), more than the "
            f"{limit / 2**30:.1f} GiB allowed: {least}{smaller}, or raise `replay_gib`"
        )
    return needed


def pack(transition: StateTransition) -> Float[Array, "*batch width"]:
    """A transition's fields side by side."""
    t = transition
    numbers = (x[..., None] for x in (t.reward, t.ret, t.continues, t.valid))
    return jnp.concatenate([t.observation, t.previous, t.action, *numbers, t.state], axis=-1)


def unpack(rows: Float[Array, "*batch width"], spec: Spec) -> StateTransition:
    """The inverse of `pack`."""
    o, a = spec.observation_size, spec.action_size
    sizes = np.cumsum([o, a, a, 1, 1, 1, 1])
    s, previous, action, reward, ret, continues, valid, state = jnp.split(rows, sizes, axis=-1)
    return StateTransition(s, previous, action, reward[..., 0], ret[..., 0], continues[..., 0], valid[..., 0], state)


def add(replay: RecurrentReplay, rows: Float[Array, "rows width"], count: Int[Array, ""]) -> RecurrentReplay:
    """Append the first `count` rows; the others are padding."""
    kept = ring.append(replay.rows, rows, replay.added, count)
    return RecurrentReplay(kept, replay.added + count, replay.spec)


class StepsAhead(eqx.Module):
    """The steps from some rows on, their own the first: `[steps, *batch]`."""

    reward: Float[Array, "steps *batch"]
    continues: Float[Array, "steps *batch"]
    """0 where the environment ended the episode with this step; 1 behind its end"""
    valid: Float[Array, "steps *batch"]
    """1 for as long as the episode lasts, then 0"""


def sample(
    replay: RecurrentReplay, key: PRNGKeyArray, size: int, steps: int = 1
) -> tuple[StateTransition, StateTransition, StepsAhead]:
    """`size` rows drawn uniformly, with replacement; those `steps` later, or at the episode's end if that comes first;
    and the steps from one to the other. Of an episode's end nothing is to be learnt: its `valid` is 0.
    """
    at = jax.random.randint(key, (size,), 0, replay.size)
    now = transition_at(replay, at)
    first = replay.spec.observation_size + 2 * replay.spec.action_size  # the column of rewards
    on = (at + jnp.arange(steps)[:, None]) % replay.capacity
    reward, continues, valid = (replay.rows[on, first + place] for place in (0, 2, 3))
    there = jnp.cumprod(valid, axis=0)
    passed = jnp.sum(there, axis=0).astype(jnp.int32)
    after = transition_at(replay, (at + passed) % replay.capacity)
    return now, after, StepsAhead(reward, jnp.where(there > 0, continues, 1), there)


def transition_at(replay: RecurrentReplay, at: Int[Array, "*batch"]) -> StateTransition:
    return unpack(replay.rows[at], replay.spec)
