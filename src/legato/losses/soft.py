"""The losses of soft actor-critic (Haarnoja et al., arXiv 1812.05905), for any critics, actor and batch.

    V(s) = min_i Qbar_i(s, a) - alpha log pi(a|s),                     a ~ pi(s)                             (3)
    L_Q  = MSE(Q_1(s, a), y) + MSE(Q_2(s, a), y),                      y = r + m gamma V(s')                 (5)
    L_pi = mean(alpha log pi(a~|s) - min_i Q_i(s, a~)),                a~ ~ pi(s), reparameterised           (7)
    L_al = -log alpha * mean(log pi + H)                               H: the entropy that is asked for     (18)

The equations' numbers are the paper's; it has alpha where L_al has log alpha, as its code does, which keeps alpha
positive.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from legato.data.replay import Transition
from legato.losses.temporal_difference import TwinValues, td_target, twin_loss
from legato.nn.distributions import TanhNormal

Actor = Callable[[Float[Array, "*batch obs"]], TanhNormal]
"""pi"""
Critic = Callable[[Float[Array, "*batch obs"], Float[Array, "*batch act"]], TwinValues]
"""Q_1 and Q_2"""


def state_value(
    q: TwinValues, log_pi: Float[Array, "*batch"], alpha: Float[Array, ""] | float
) -> Float[Array, "*batch"]:
    """V(s), of one action that pi drew there: the smaller of its two values, and the entropy's share."""
    return jnp.minimum(*q) - alpha * log_pi


def action_cost(
    q: Float[Array, "*batch"], log_pi: Float[Array, "*batch"], alpha: Float[Array, ""] | float
) -> Float[Array, "*batch"]:
    """alpha log pi(a|s) - Q(s, a): what the actor makes small, action by action. L_pi is its mean."""
    return alpha * log_pi - q


def critic_loss(
    critic: Critic,
    target_critic: Critic,
    actor: Actor,
    alpha: Float[Array, ""],
    gamma: float,
    batch: Transition,
    noise: Float[Array, "batch act"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """L_Q and the mean Q_1. `noise` is standard normal and picks a'."""
    a_next, log_pi = actor(batch.next_observation).sample(noise)
    v_next = state_value(target_critic(batch.next_observation, a_next), log_pi, alpha)
    y = td_target(batch.reward, batch.continues, gamma, v_next)
    q = critic(batch.observation, batch.action)
    return twin_loss(q, y), q[0].mean()


def actor_loss(
    actor: Actor,
    critic: Critic,
    alpha: Float[Array, ""],
    s: Float[Array, "batch obs"] | UInt8[Array, "batch obs"],
    noise: Float[Array, "batch act"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """L_pi and the mean log pi. `noise` is standard normal and picks a~."""
    a, log_pi = actor(s).sample(noise)
    return jnp.mean(action_cost(jnp.minimum(*critic(s, a)), log_pi, alpha)), log_pi.mean()


def temperature_gradient(log_pi: Float[Array, ""], target_entropy: float | int) -> Float[Array, ""]:
    """dL_al / d log alpha, of the mean log pi: negative, so that alpha rises, where there is too little entropy."""
    return -(log_pi + target_entropy)
