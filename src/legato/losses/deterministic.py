"""The losses of twin delayed deterministic policy gradients (Fujimoto, van Hoof & Meger 2018, arXiv 1802.09477).

    a'   = mu'(s') + clip(eps, -c, c)                                  eps ~ N(0, sigma^2); kept within the bounds
    L_Q  = MSE(Q_1(s, a), y) + MSE(Q_2(s, a), y),                      y = r + m gamma min_i Q'_i(s', a')
    L_mu = -mean Q_1(s, mu(s))

Beside another loss, L_mu is counted in units of the values themselves (Fujimoto & Gu 2021, arXiv 2106.06860, eq. 5).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from legato.data.replay import Transition
from legato.losses.means import masked_mean
from legato.losses.temporal_difference import TwinValues, td_target, twin_loss

Actor = Callable[..., Any]
"""mu: the action in a state, and, with a second argument, that action moved by so much and kept within the bounds"""
Critic = Callable[[Float[Array, "*batch obs"], Float[Array, "*batch act"]], TwinValues]
"""Q_1 and Q_2"""


def smoothing_noise(noise: Float[Array, "*batch act"], sigma: float, c: float) -> Float[Array, "*batch act"]:
    """clip(eps, -c, c), of standard-normal `noise`."""
    return jnp.clip(sigma * noise, -c, c)


def critic_loss(
    critic: Critic,
    target_critic: Critic,
    target_actor: Actor,
    gamma: float,
    batch: Transition,
    noise: Float[Array, "batch act"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """L_Q and the mean Q_1. `noise` is what a' is moved by."""
    a_next = target_actor(batch.next_observation, noise)
    v_next = jnp.minimum(*target_critic(batch.next_observation, a_next))
    y = td_target(batch.reward, batch.continues, gamma, v_next)
    q = critic(batch.observation, batch.action)
    return twin_loss(q, y), q[0].mean()


def actor_loss(actor: Actor, critic: Critic, s: Float[Array, "batch obs"]) -> Float[Array, ""]:
    """L_mu."""
    q1, _ = critic(s, actor(s))
    return -q1.mean()


def normalised_actor_loss(q: Float[Array, "*batch"], mask: Bool[Array, "*batch"]) -> Float[Array, ""]:
    """-mean Q / mean |Q|, over the values where `mask`; what divides sends no gradient."""
    size = jax.lax.stop_gradient(masked_mean(jnp.abs(q), mask))
    return -masked_mean(q, mask) / (size + 1e-6)
