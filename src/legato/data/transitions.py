"""Single steps of logged episodes with what came of them, drawn inside jit from a set that lies on the device."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from legato.data import trajectories as logs
from legato.data.trajectories import Trajectories
from legato.data.windows import Draw
from legato.errors import LegatoError


class Outcomes(eqx.Module):
    """(s, a, r, s', continues). `continues` is 0 only where the episode truly terminated, and s' then means nothing."""

    observation: Float[Array, "*batch obs"]
    action: Float[Array, "*batch act"] | Int[Array, "*batch"]
    reward: Float[Array, "*batch"]
    following: Float[Array, "*batch obs"]
    continues: Float[Array, "*batch"]


class Transitions(eqx.Module):
    """A set of trajectories on the device, one row per step, and behind them the rows seen after last steps."""

    observations: Float[Array, "rows obs"]
    actions: Float[Array, "steps act"] | Int[Array, " steps"]
    rewards: Float[Array, " steps"]
    continues: Float[Array, " steps"]
    following: Int[Array, " steps"]
    """the row of the observation after each step"""
    known: Int[Array, " known"]
    """the steps that can be learnt from: all but those after which an episode was cut and nobody saw where it stood"""

    def draw(self, key: PRNGKeyArray, what: Draw) -> Outcomes:
        """`what.size` steps, drawn uniformly from those that can be learnt from, with replacement."""
        return self.outcomes(self.known[jax.random.randint(key, (what.size,), 0, len(self.known))])

    def outcomes(self, step: Int[Array, "*batch"]) -> Outcomes:
        """What came of these steps."""
        return Outcomes(
            self.observations[step],
            self.actions[step],
            self.rewards[step],
            self.observations[self.following[step]],
            self.continues[step],
        )


def known(data: Trajectories) -> Int[np.ndarray, " known"]:
    """The steps of which it is known where they led, or that they ended the episode."""
    if data.ends is not None:
        return np.arange(data.steps)
    last = data.offsets[1:] - 1
    return np.delete(np.arange(data.steps), last[~data.terminations[last]])


def transitions(data: Trajectories) -> Transitions:
    """Put the steps of a set on the device.

    Raises `LegatoError` where there are no rewards, and where it is known of no step where it led.
    """
    last, rows = data.offsets[1:] - 1, known(data)
    if not len(rows):
        raise LegatoError(f"{data.about.name} says of no step where it led: its episodes are cut after one")
    following = np.arange(1, data.steps + 1)
    following[last] = last if data.ends is None else data.steps + np.arange(len(data))
    seen = data.observations if data.ends is None else np.concatenate([data.observations, data.ends])
    return Transitions(
        jnp.asarray(seen),
        jnp.asarray(data.actions),
        jnp.asarray(logs.rewards(data)),
        jnp.asarray(~data.terminations, jnp.float32),
        jnp.asarray(following, jnp.int32),
        jnp.asarray(rows, jnp.int32),
    )
