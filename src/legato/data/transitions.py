"""Transitions of logged episodes, sampled inside jit from a set that lies on the device."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from legato.data import trajectories as logs
from legato.data.trajectories import Trajectories
from legato.data.windows import BatchSpec
from legato.errors import LegatoError


class LoggedTransition(eqx.Module):
    """(s, a, r, s', continues). `continues` is 0 only where the episode truly terminated, and s' then means nothing."""

    observation: Float[Array, "*batch obs"]
    action: Float[Array, "*batch act"] | Int[Array, "*batch"]
    reward: Float[Array, "*batch"]
    next_observation: Float[Array, "*batch obs"]
    continues: Float[Array, "*batch"]


class Transitions(eqx.Module):
    """A set of trajectories on the device, one row per step, and behind them the rows seen after last steps."""

    observations: Float[Array, "rows obs"]
    actions: Float[Array, "steps act"] | Int[Array, " steps"]
    rewards: Float[Array, " steps"]
    continues: Float[Array, " steps"]
    next_row: Int[Array, " steps"]
    """the row of the observation after each step"""
    usable: Int[Array, " usable"]
    """the steps that can be learnt from: all but those after which an episode was cut and whose next observation is
    missing
    """

    def draw(self, key: PRNGKeyArray, batch_spec: BatchSpec) -> LoggedTransition:
        """`batch_spec.size` steps, drawn uniformly from those that can be learnt from, with replacement."""
        return self.at(self.usable[jax.random.randint(key, (batch_spec.size,), 0, len(self.usable))])

    def at(self, step: Int[Array, "*batch"]) -> LoggedTransition:
        """These transitions."""
        return LoggedTransition(
            self.observations[step],
            self.actions[step],
            self.rewards[step],
            self.observations[self.next_row[step]],
            self.continues[step],
        )


def usable_steps(data: Trajectories) -> Int[np.ndarray, " usable"]:
    """The steps whose next observation is known, or that ended the episode."""
    if data.final_observations is not None:
        return np.arange(data.steps)
    last = data.offsets[1:] - 1
    return np.delete(np.arange(data.steps), last[~data.terminations[last]])


def transitions(data: Trajectories) -> Transitions:
    """Put the steps of a set on the device.

    Raises `LegatoError` where there are no rewards, and where the next observation of every step is missing.
    """
    last, rows = data.offsets[1:] - 1, usable_steps(data)
    if not len(rows):
        raise LegatoError(f"{data.about.name} has no next observation of any step: its episodes are cut after one")
    next_row = np.arange(1, data.steps + 1)
    next_row[last] = last if data.final_observations is None else data.steps + np.arange(len(data))
    seen = (
        data.observations
        if data.final_observations is None
        else np.concatenate([data.observations, data.final_observations])
    )
    return Transitions(
        jnp.asarray(seen),
        jnp.asarray(data.actions),
        jnp.asarray(logs.rewards(data)),
        jnp.asarray(~data.terminations, jnp.float32),
        jnp.asarray(next_row, jnp.int32),
        jnp.asarray(rows, jnp.int32),
    )
