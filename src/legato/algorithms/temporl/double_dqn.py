"""Double DQN, the behaviour where actions are choices (van Hasselt, Guez & Silver 2015, arXiv 1509.06461).

a* = argmax_a Q(s', a)
y  = r + m gamma Q'(s', a*)                           m: 0 where the environment ended the episode
L  = MSE(Q(s, a), y)

Targets follow with every update.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from legato.algorithms.temporl.config import TempoRL as Config
from legato.data.replay import Transition
from legato.data.spec import Spec
from legato.losses.temporal_difference import td_target
from legato.nn.mlp import MLP
from legato.nn.optimisation import descend, linear_decay, optax, polyak

Metrics = dict[str, Float[Array, ""]]


class QNetwork(eqx.Module):
    """Q(s, a) of every choice: two hidden ReLU layers."""

    network: MLP
    spec: Spec = eqx.field(static=True)

    def __init__(self, spec: Spec, hidden: int, *, key: PRNGKeyArray):
        assert spec.choices is not None
        self.network = MLP((spec.observation_size, hidden, hidden, spec.choices), key=key)
        self.spec = spec

    def __call__(self, s: Float[Array, "*batch obs"]) -> Float[Array, "*batch choices"]:
        return self.network(s)


class Learner(eqx.Module):
    """Everything that double DQN carries while training."""

    q: QNetwork
    target_q: QNetwork
    optimiser: optax.OptState
    updates: Int[Array, ""]
    spec: Spec = eqx.field(static=True)


def init(config: Config, spec: Spec, key: PRNGKeyArray) -> Learner:
    """A learner before its first update."""
    q = QNetwork(spec, config.hidden, key=key)
    state = optax.adam(config.learning_rate).init(q)  # type: ignore[arg-type]
    return Learner(q, jax.tree.map(jnp.copy, q), state, jnp.zeros((), jnp.int32), spec)


def target_value(learner: Learner, s: Float[Array, "*batch obs"]) -> Float[Array, "*batch"]:
    """Q'(s, argmax_a Q(s, a))."""
    best = jnp.argmax(learner.q(s), axis=-1, keepdims=True)
    return jnp.take_along_axis(learner.target_q(s), best, axis=-1)[..., 0]


def loss(q: QNetwork, learner: Learner, gamma: float, batch: Transition) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """L and the mean Q of the actions that were taken."""
    y = td_target(batch.reward, batch.continues, gamma, target_value(learner, batch.next_observation))
    taken = jnp.take_along_axis(q(batch.observation), batch.action.astype(int), axis=-1)[..., 0]
    return jnp.mean((taken - y) ** 2), taken.mean()


def update(config: Config, learner: Learner, batch: Transition) -> tuple[Learner, Metrics]:
    """One gradient step, and one Polyak step of the target. Nothing is drawn."""
    adam = optax.adam(linear_decay(config.learning_rate, config.anneal_over, learner.updates))
    (loss_q, mean_q), g = jax.value_and_grad(loss, has_aux=True)(learner.q, learner, config.gamma, batch)
    q, state = descend(adam, learner.q, g, learner.optimiser)
    target_q = polyak(learner.target_q, q, config.tau)
    return Learner(q, target_q, state, learner.updates + 1, learner.spec), {"critic_loss": loss_q, "q": mean_q}
