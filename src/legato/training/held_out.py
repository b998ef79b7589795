"""How well policies predict the actions in logged episodes that they did not learn from: what a simulator would show
only in part, and all there is where there is none.

Policies are led through the episodes: at each step they read what was observed, what was paid and which action was
really taken before, and write one greedy action, which is held against the logged one. A policy that reads a target
return is asked for what the episode earned.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from legato.data import trajectories as logs
from legato.data.spec import Spec
from legato.data.trajectories import Trajectories
from legato.errors import LegatoError
from legato.policy import Policy, Step

TOGETHER = 16  # episodes at once


def shares(errors: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """`[seeds]`: errors as shares of the logged deviation, over those numbers of an action that change at all."""
    moves = deviation > 0
    if not moves.any():
        return np.zeros(len(errors))
    return (errors[:, moves] / deviation[moves]).mean(axis=1)


def errors(
    policies: Policy[Any], data: Trajectories, spec: Spec, *, conditioned: bool = False, gamma: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors `[seeds, numbers of an action]` of `policies`, which are stacked over seeds; of holding; the deviation.

    They are root mean squares in the actions' own units, or of discrete actions the share that differs. Holding
    repeats the logged action before; the deviation is what the logs' mean (or the commonest choice) is off.
    """
    logged = _actions(data)
    apart = predict(policies, data, spec, conditioned=conditioned, gamma=gamma) - logged
    before = np.roll(logged, 1, axis=0)
    first = data.offsets[:-1]
    before[first] = np.asarray(spec.middle, np.float64)
    if data.discrete:
        kinds, counts = np.unique(logged, return_counts=True)
        common = kinds[counts.argmax()]
        wrong = (np.rint(apart) != 0).mean(axis=1)
        return wrong, (before != logged).mean(axis=0), (logged != common).mean(axis=0)
    held = np.delete(before - logged, first, axis=0) if data.steps > len(data) else before - logged
    return np.sqrt((apart**2).mean(axis=1)), np.sqrt((held**2).mean(axis=0)), logged.std(axis=0)


def _actions(data: Trajectories) -> np.ndarray:
    actions = np.asarray(data.actions, np.float64)
    return actions[:, None] if actions.ndim == 1 else actions


def predict(
    policies: Policy[Any], data: Trajectories, spec: Spec, *, conditioned: bool = False, gamma: float = 1.0
) -> Float[np.ndarray, "seeds steps act"]:
    """The greedy action of every seed's policy at every logged step. Raises `LegatoError` for other sizes."""
    actions = _actions(data).astype(np.float32)
    if (data.observations.shape[1], actions.shape[1]) != (spec.observation_size, spec.action_size):
        raise LegatoError(
            f"{data.about.name} has observations of {data.observations.shape[1]} numbers and actions of "
            f"{actions.shape[1]}; the policy reads {spec.observation_size} and writes {spec.action_size}"
        )
    if data.discrete != (spec.choices is not None):
        raise LegatoError(f"{data.about.name} and the policy differ: one has discrete actions")
    rewards = np.zeros(data.steps, np.float32) if data.rewards is None else data.rewards
    asked: Any = ()
    if conditioned:
        if data.rewards is None:
            raise LegatoError(f"{data.about.name} has no rewards, and the policy is asked for a return")
        asked = logs.returns(data, gamma).astype(np.float32)
    longest = int(data.lengths.max())
    found = []
    for begin in range(0, len(data), TOGETHER):
        batch = np.arange(begin, min(begin + TOGETHER, len(data)))
        batch = np.append(batch, np.repeat(batch[-1:], TOGETHER - len(batch)))  # one shape, one compilation
        logged = (data.observations, rewards, actions)
        seen, paid, done = (jnp.asarray(_padded(array, data, batch, longest)) for array in logged)
        commands = asked[batch] if conditioned else ()
        plans = np.asarray(_led(policies, jnp.asarray(spec.middle, jnp.float32), seen, paid, done, commands))
        for place, episode in enumerate(range(begin, min(begin + TOGETHER, len(data)))):
            found.append(plans[:, place, : data.lengths[episode]])
    return np.concatenate(found, axis=1).astype(np.float64)


def _padded(array: np.ndarray, data: Trajectories, episodes: np.ndarray, longest: int) -> np.ndarray:
    found = np.zeros((len(episodes), longest, *array.shape[1:]), array.dtype)
    for row, episode in zip(found, episodes, strict=True):
        at = data.episode(int(episode))
        row[: at.stop - at.start] = array[at]
    return found


@eqx.filter_jit
def _led(
    policies: Policy[Any],
    middle: Float[Array, " act"],
    observations: Float[Array, "episodes steps obs"],
    rewards: Float[Array, "episodes steps"],
    actions: Float[Array, "episodes steps act"],
    commands: Any,
) -> Float[Array, "seeds episodes steps act"]:
    """What each policy writes at every step, given what was logged before it."""
    first = jnp.arange(observations.shape[1]) == 0

    def led(policy: Policy[Any], seen: Array, paid: Array, done: Array, command: Any) -> Array:
        def step(state: Any, told: Step) -> tuple[Any, Array]:
            plan, state = policy.decide(policy.observe(state, told), None, 1)
            return state, plan[0]

        executed = jnp.concatenate([middle[None], done[:-1]])
        told = Step(seen, jnp.concatenate([jnp.zeros(1), paid[:-1]]), executed, first)
        return jax.lax.scan(step, policy.init_state(command), told)[1]

    over = jax.vmap(led, in_axes=(None, 0, 0, 0, 0))
    return eqx.filter_vmap(over, in_axes=(eqx.if_array(0), None, None, None, None))(
        policies, observations, rewards, actions, commands
    )
