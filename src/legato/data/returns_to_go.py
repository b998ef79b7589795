"""Returns-to-go: what was earned from each step of an episode on, or what is left of what was asked for.

earned      R_t = r_t + gamma R_{t+1},  0 behind the last step
asked for   R_{t+1} = (R_t - r_t) / gamma,  R_0 the target return
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def from_rewards(rewards: Float[Array, " rows"], gamma: float) -> Float[Array, " rows"]:
    """What is earned from each step on."""

    def backwards(after: Array, reward: Array) -> tuple[Array, Array]:
        togo = reward + gamma * after
        return togo, togo

    return jax.lax.scan(backwards, jnp.zeros(()), rewards, reverse=True)[1]


def from_target(target: Float[Array, ""], rewards: Float[Array, " rows"], gamma: float) -> Float[Array, " rows"]:
    """What is left of the target return at each step: the target, less what was earned before."""

    def onwards(togo: Array, reward: Array) -> tuple[Array, Array]:
        return after_reward(togo, reward, gamma), togo

    return jax.lax.scan(onwards, target, rewards)[1]


def after_reward(
    return_to_go: Float[Array, "*batch"], reward: Float[Array, "*batch"], gamma: float
) -> Float[Array, "*batch"]:
    """What is left of a return asked for after a step that earned this reward."""
    return (return_to_go - reward) / gamma
