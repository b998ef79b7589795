"""Implicit Q-learning (Kostrikov, Nair & Levine, ICLR 2022, arXiv 2110.06169): values of the best actions in the data.

    L_V  = mean(L_2^tau(min_i Qbar_i(s, a) - V(s))),        L_2^tau(u) = |tau - 1(u < 0)| u^2
    L_pi = -mean(min(exp(beta (min_i Qbar_i(s, a) - V(s))), 100) log pi(a|s))
    L_Q  = MSE(Q_1(s, a), y) + MSE(Q_2(s, a), y),           y = r + gamma m V(s')

One update steps V, then pi and Q, both with the new V, and then the target critics Qbar. Only actions of the data are
ever judged. pi is a Gaussian around tanh(f(s)), in units of the actions' bounds, whose deviation does not depend on s,
or a categorical; greedy actions are tanh of the mean, or the arg max. m is 0 only where an episode truly terminated.
V and Q are of rewards r / `reward_scale` + `reward_shift`. The networks read normalised observations, as all that
learns from logs here; those of the official code read them as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from legato.algorithms.iql.config import IQL as Config
from legato.data import dataset_statistics
from legato.data import trajectories as logs
from legato.data.dataset_statistics import DatasetStatistics
from legato.data.spec import Spec
from legato.data.trajectories import Trajectories
from legato.data.transitions import LoggedTransition, Transitions, transitions
from legato.data.windows import BatchSpec
from legato.losses.imitation import cross_entropy
from legato.losses.temporal_difference import td_target, twin_loss
from legato.models.q_functions import QFunction, critics, min_q, q_values, state_value
from legato.nn.ensembles import TwinCritic
from legato.nn.layers import drop, dropout_bits
from legato.nn.mlp import MLP, Linear, orthogonal
from legato.nn.optimisation import descend, linear_decay, optax, polyak
from legato.policy import LastStep, Policy, Step, hold_action, refuse_command

Metrics = dict[str, Float[Array, ""]]

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0  # of the official code
HEAVIEST = 100.0  # weight of an action


class Actor(eqx.Module):
    """f(s): ReLU layers with dropout between them; and the log-deviation of the Gaussian, where there is one."""

    layers: tuple[Linear, ...]
    log_std: Float[Array, " act"] | None
    dropout: float = eqx.field(static=True)

    def __init__(self, config: Config, spec: Spec, *, key: PRNGKeyArray):
        sizes = [spec.observation_size, *[config.hidden] * config.layers, spec.choices or spec.action_size]
        keys = jax.random.split(key, len(sizes) - 1)
        self.layers = tuple(Linear(a, b, key=k) for a, b, k in zip(sizes[:-1], sizes[1:], keys, strict=True))
        self.log_std = jnp.zeros(spec.action_size) if spec.choices is None else None
        self.dropout = config.dropout

    def __call__(self, s: Float[Array, "*batch obs"], key: PRNGKeyArray | None = None) -> Float[Array, "*batch act"]:
        """Actions before the tanh, or logits."""
        hidden = len(self.layers) - 1
        bits = [None] * hidden
        if key is not None and self.dropout:
            bits = dropout_bits(key, (hidden, *s.shape[:-1], self.layers[0].bias.size))
        for layer, of_layer in zip(self.layers[:-1], bits, strict=True):
            s = drop(jax.nn.relu(layer(s)), self.dropout, of_layer)
        return self.layers[-1](s)

    def deviation(self) -> Float[Array, " act"]:
        """Of the Gaussian, in units of the actions' bounds."""
        assert self.log_std is not None
        return jnp.exp(jnp.clip(self.log_std, LOG_STD_MIN, LOG_STD_MAX))


class Learner(eqx.Module):
    """Everything IQL carries while training."""

    actor: Actor
    critic: TwinCritic
    target_critic: TwinCritic
    value: MLP
    statistics: DatasetStatistics
    optimisers: dict[str, optax.OptState]
    updates: Int[Array, ""]


def select_data(config: Config, data: Trajectories, limit: int | None = None) -> Trajectories:
    """The data as it is learnt from: all of it. Raises `LegatoError` where there are no rewards."""
    logs.rewards(data)
    return data


def prepare(
    config: Config, spec: Spec, data: Trajectories, folder: Path | None, fingerprint: str
) -> tuple[DatasetStatistics, Transitions]:
    """The statistics of the data, whose `scale` divides rewards, and its steps on the device. Nothing needs to be
    kept.
    """
    scale = config.reward_scale or float(np.ptp(logs.returns(data))) / 1000 or 1.0
    return dataset_statistics.of(data, spec, scale=scale), transitions(data)


def init(config: Config, spec: Spec, key: PRNGKeyArray, statistics: DatasetStatistics | None = None) -> Learner:
    """A learner before its first update. `statistics` are those of the data."""
    trained = _networks(config, spec, key)
    actor, critic, value = trained.values()
    return Learner(
        actor=actor,
        critic=critic,
        target_critic=jax.tree.map(jnp.copy, critic),
        value=value,
        statistics=DatasetStatistics.identity(spec) if statistics is None else statistics,
        optimisers={name: optax.adam(config.learning_rate).init(part) for name, part in trained.items()},
        updates=jnp.zeros((), jnp.int32),
    )


def _networks(config: Config, spec: Spec, key: PRNGKeyArray) -> dict[str, Any]:
    k_actor, k_critic, k_value = jax.random.split(key, 3)
    actor = Actor(config, spec, key=k_actor)
    critic = critics(spec, config.hidden, config.layers, key=k_critic)
    value = MLP((spec.observation_size, *[config.hidden] * config.layers, 1), key=k_value)
    networks: dict[str, Any] = {"actor": actor, "critic": critic, "value": value}
    if config.initialisation == "orthogonal":
        keys = jax.random.split(jax.random.fold_in(key, 1), len(networks))
        networks = {name: orthogonal(part, 2**0.5, k) for (name, part), k in zip(networks.items(), keys, strict=True)}
    return networks


def step_sizes(config: Config, updates: Int[Array, ""]) -> tuple[Any, Any]:
    """Of the actor, on a cosine to zero, and of critics and V: constant, or on `linear_decay`'s line."""
    line = linear_decay(config.learning_rate, config.anneal_over, updates)
    if config.anneal_over == 0:
        return line, line
    cosine = optax.cosine_decay_schedule(config.learning_rate, config.anneal_over)(updates)
    return cosine, line if config.anneal_critics else config.learning_rate


def asymmetric(error: Float[Array, "*batch"], expectile: float) -> Float[Array, "*batch"]:
    """L_2^tau: squares, of which those above zero weigh tau and those below 1 - tau."""
    return jnp.where(error > 0, expectile, 1 - expectile) * error**2


def value_loss(
    value: MLP, statistics: DatasetStatistics, s: Float[Array, "batch obs"], q: Float[Array, " batch"], expectile: float
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """L_V and the mean V."""
    v = state_value(value, statistics, s)
    return jnp.mean(asymmetric(q - v, expectile)), v.mean()


def targets(
    config: Config, statistics: DatasetStatistics, value: MLP, batch: LoggedTransition
) -> Float[Array, " batch"]:
    """y: what a step was paid, and what its next observation is worth where the episode goes on."""
    r = statistics.scale_return(batch.reward) + config.reward_shift
    return td_target(r, batch.continues, config.gamma, state_value(value, statistics, batch.next_observation))


def critic_loss(
    critic: TwinCritic, statistics: DatasetStatistics, batch: LoggedTransition, y: Float[Array, " batch"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """L_Q and the mean Q_1."""
    q = q_values(critic, statistics, batch.observation, batch.action)
    return twin_loss(q, y), q[0].mean()


def weights(advantage: Float[Array, "*batch"], beta: float) -> Float[Array, "*batch"]:
    """How much an action is imitated, for being so much better than what is done there."""
    return jnp.minimum(jnp.exp(beta * advantage), HEAVIEST)


def log_likelihood(
    actor: Actor, statistics: DatasetStatistics, batch: LoggedTransition, key: PRNGKeyArray | None = None
) -> Float[Array, " batch"]:
    """log pi(a|s), per unit of the actions' bounds. With a `key` dropout is on."""
    given = actor(statistics.normaliser(batch.observation), key)
    if statistics.spec.choices is not None:
        return -cross_entropy(given, batch.action)
    deviation = actor.deviation()
    off = (statistics.normalise_actions(batch.action) - jnp.tanh(given)) / deviation
    return jnp.sum(-0.5 * off**2 - jnp.log(deviation) - 0.5 * jnp.log(2 * jnp.pi), axis=-1)


def actor_loss(
    actor: Actor,
    statistics: DatasetStatistics,
    batch: LoggedTransition,
    weight: Float[Array, " batch"],
    key: PRNGKeyArray | None = None,
) -> Float[Array, ""]:
    """L_pi."""
    return -jnp.mean(weight * log_likelihood(actor, statistics, batch, key))


def update(config: Config, learner: Learner, batch: LoggedTransition, key: PRNGKeyArray) -> tuple[Learner, Metrics]:
    """One gradient step of V, actor and critics, and one Polyak step of the target critics."""
    statistics, states, s = learner.statistics, learner.optimisers, batch.observation
    of_actor, of_critics = map(optax.adam, step_sizes(config, learner.updates))
    q = min_q(learner.target_critic, statistics, s, batch.action)

    (loss_v, v), g = jax.value_and_grad(value_loss, has_aux=True)(learner.value, statistics, s, q, config.expectile)
    value, value_state = descend(of_critics, learner.value, g, states["value"])

    weight = weights(q - state_value(value, statistics, s), config.beta)
    loss_pi, g = jax.value_and_grad(actor_loss)(learner.actor, statistics, batch, weight, key)
    actor, actor_state = descend(of_actor, learner.actor, g, states["actor"])

    y = targets(config, statistics, value, batch)
    (loss_q, q1), g = jax.value_and_grad(critic_loss, has_aux=True)(learner.critic, statistics, batch, y)
    critic, critic_state = descend(of_critics, learner.critic, g, states["critic"])

    metrics = {
        "loss": loss_pi,
        "value_loss": loss_v,
        "critic_loss": loss_q,
        "v": v,
        "q": q1,
        "weight": weight.mean(),
    }
    return Learner(
        actor=actor,
        critic=critic,
        target_critic=polyak(learner.target_critic, critic, config.tau),
        value=value,
        statistics=statistics,
        optimisers={"actor": actor_state, "critic": critic_state, "value": value_state},
        updates=learner.updates + 1,
    ), metrics


class Extracted(Policy[LastStep]):
    """Decides one action from the newest observation, and holds it. Q and V, which it does not need, are for others."""

    actor: Actor
    critic: TwinCritic
    value: MLP
    statistics: DatasetStatistics

    def init_state(self, command: Any) -> LastStep:
        refuse_command(command)
        return LastStep.empty(self.statistics.spec)

    def observe(self, state: LastStep, step: Step) -> LastStep:
        return LastStep.of(step)

    def decide(self, state: LastStep, key: PRNGKeyArray | None, length: int) -> tuple[Array, LastStep]:
        given = self.actor(self.statistics.normaliser(state.observation))
        if key is None or self.statistics.spec.choices is not None:
            return hold_action(self.statistics.to_action(given, key), length), state
        drawn = jnp.tanh(given) + self.actor.deviation() * jax.random.normal(key, given.shape)
        return hold_action(self.statistics.to_action(drawn, None, squash=False), length), state


def policy(config: Config, learner: Learner) -> Extracted:
    """The deployable part: the actor, and the critics that it and V were taught by, which are the targets."""
    return Extracted(learner.actor, learner.target_critic, learner.value, learner.statistics)


def new_policy(config: Config, spec: Spec, key: PRNGKeyArray) -> Extracted:
    """`policy` of what `init` gives, without what only learns."""
    return Extracted(*_networks(config, spec, key).values(), statistics=DatasetStatistics.identity(spec))


def q_function(config: Config, policy: Extracted) -> QFunction:
    """What another algorithm's search may ask: Q, in this algorithm's own units of reward."""
    return QFunction(policy.critic, policy.statistics, config.gamma, config.reward_shift)


def batches(config: Config) -> BatchSpec:
    """Single steps, each with what came of it."""
    return BatchSpec(config.batch_size, 1)


def plan_length(config: Config) -> int:
    """Primitive steps between decisions while training."""
    return 1
