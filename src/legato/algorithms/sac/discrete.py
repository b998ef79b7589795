"""SAC where actions are choices (Christodoulou 2019, arXiv 1910.07207): expectations over pi are sums.

    y    = r + m gamma sum_a pi(a|s') (min_i Qbar_i(s', a) - alpha log pi(a|s'))
    L_Q  = MSE(Q_1(s, a), y) + MSE(Q_2(s, a), y)
    L_pi = mean sum_a pi(a|s) (alpha log pi(a|s) - min_i Q_i(s, a))
    L_al = -log alpha * mean(sum_a pi log pi + H),                     H = h log |A|

The critics give the values of all choices at once. h is `entropy_share`, 0.98 as published.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from legato.algorithms.sac.config import SAC as Config
from legato.algorithms.soft_actor_critic import Losses
from legato.data.replay import Transition
from legato.data.spec import Spec
from legato.losses.temporal_difference import td_target, twin_loss
from legato.models.image_network import ImageNetwork
from legato.nn.mlp import MLP
from legato.policy import LastStep, Policy, Step, hold_action, refuse_command


class Actor(eqx.Module):
    """pi(a|s): logits of two hidden ReLU layers."""

    logits: MLP

    def __init__(self, spec: Spec, hidden: int, *, key: PRNGKeyArray):
        assert spec.choices is not None
        self.logits = MLP((spec.observation_size, hidden, hidden, spec.choices), key=key)

    def __call__(self, s: Float[Array, "*batch obs"]) -> Float[Array, "*batch choices"]:
        """log pi(a|s) of every choice."""
        return jax.nn.log_softmax(self.logits(s))


class Critics(eqx.Module):
    """Q_1(s, a) and Q_2(s, a) of every choice, independent; weights are stacked along a leading axis."""

    q: MLP

    def __init__(self, spec: Spec, hidden: int, *, key: PRNGKeyArray):
        assert spec.choices is not None
        sizes = (spec.observation_size, hidden, hidden, spec.choices)
        self.q = jax.vmap(lambda k: MLP(sizes, key=k))(jax.random.split(key))

    def __call__(
        self, s: Float[Array, "*batch obs"]
    ) -> tuple[Float[Array, "*batch choices"], Float[Array, "*batch choices"]]:
        q1, q2 = jax.vmap(lambda q: q(s))(self.q)
        return q1, q2


def critic_loss(
    critic: Critics | ImageNetwork, learner: Any, config: Config, batch: Transition, noise: Float[Array, "batch act"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """L_Q and the mean Q_1 of the actions that were taken; nothing is drawn."""
    log_pi = learner.actor(batch.next_observation)
    q_next = jnp.minimum(*learner.target_critic(batch.next_observation))
    v_next = jnp.sum(jnp.exp(log_pi) * (q_next - learner.alpha * log_pi), axis=-1)
    y = td_target(batch.reward, batch.continues, config.gamma, v_next)
    taken = batch.action.astype(int)
    q1, q2 = (jnp.take_along_axis(q, taken, axis=-1)[..., 0] for q in critic(batch.observation))
    return twin_loss((q1, q2), y), q1.mean()


def actor_loss(
    actor: Actor | ImageNetwork,
    critic: Critics | ImageNetwork,
    alpha: Float[Array, ""],
    s: Float[Array, "batch obs"] | UInt8[Array, "batch obs"],
    noise: Float[Array, "batch act"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """L_pi and the mean of sum_a pi log pi, the entropy's negative; nothing is drawn."""
    log_pi = actor(s)
    pi, q = jnp.exp(log_pi), jax.lax.stop_gradient(jnp.minimum(*critic(s)))
    return jnp.mean(jnp.sum(pi * (alpha * log_pi - q), axis=-1)), jnp.mean(jnp.sum(pi * log_pi, axis=-1))


LOSSES = Losses(critic_loss, actor_loss)


class HeldChoice(Policy[LastStep]):
    """Decides one choice and holds it."""

    actor: Actor | ImageNetwork
    spec: Spec = eqx.field(static=True)

    def init_state(self, command: Any) -> LastStep:
        refuse_command(command)
        return LastStep.empty(self.spec)

    def observe(self, state: LastStep, step: Step) -> LastStep:
        return LastStep.of(step)

    def decide(self, state: LastStep, key: PRNGKeyArray | None, length: int) -> tuple[Array, LastStep]:
        log_pi = self.actor(state.observation)
        chosen = jnp.argmax(log_pi) if key is None else jax.random.categorical(key, log_pi)
        return hold_action(chosen[None].astype(jnp.float32), length), state
