"""Behaviour cloning, of all episodes or of the best (%BC, Chen et al. 2021): the measure of learning from logs.

L = MSE(tanh(f(s)), a),  cross-entropy for a choice
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from legato.algorithms import action_units
from legato.algorithms.bc.config import BC as Config
from legato.data import dataset_statistics, sets
from legato.data.dataset_statistics import DatasetStatistics
from legato.data.spec import Spec
from legato.data.trajectories import Trajectories
from legato.data.windows import BatchSpec, Window
from legato.losses.imitation import action_error
from legato.losses.means import masked_mean
from legato.models.image_network import ImageNetwork, with_encoder
from legato.nn.layers import drop, dropout_bits
from legato.nn.mlp import Linear
from legato.nn.optimisation import adamw, descend, optax, warmup_schedule
from legato.policy import LastStep, Policy, Step, hold_action, refuse_command

Metrics = dict[str, Float[Array, ""]]
for_data = action_units.for_data


class Network(eqx.Module):
    """ReLU layers with dropout between them."""

    layers: tuple[Linear, ...]
    dropout: float = eqx.field(static=True)

    def __init__(self, config: Config, spec: Spec, *, key: PRNGKeyArray):
        sizes = [spec.observation_size, *[config.hidden] * config.layers, spec.choices or spec.action_size]
        keys = jax.random.split(key, len(sizes) - 1)
        self.layers = tuple(Linear(a, b, key=k) for a, b, k in zip(sizes[:-1], sizes[1:], keys, strict=True))
        self.dropout = config.dropout

    def __call__(self, s: Float[Array, "*batch obs"], key: PRNGKeyArray | None = None) -> Float[Array, "*batch act"]:
        """Actions before the tanh (`DatasetStatistics.squash`), or logits."""
        hidden = len(self.layers) - 1
        bits = [None] * hidden if key is None else dropout_bits(key, (hidden, *s.shape[:-1], self.layers[0].bias.size))
        for layer, of_layer in zip(self.layers[:-1], bits, strict=True):
            s = drop(jax.nn.relu(layer(s)), self.dropout, of_layer)
        return self.layers[-1](s)


class Learner(eqx.Module):
    """Everything behaviour cloning carries while training."""

    network: Network | ImageNetwork
    statistics: DatasetStatistics
    optimiser: optax.OptState
    updates: Int[Array, ""]


def select_data(config: Config, data: Trajectories, limit: int | None = None) -> Trajectories:
    """The data as it is learnt from: all of it, or the best episodes, for which rewards are needed."""
    return data if config.fraction == 1 else sets.top(data, config.fraction)


def statistics(config: Config, spec: Spec, data: Trajectories) -> DatasetStatistics:
    """What the policy keeps of the data."""
    return dataset_statistics.of(data, spec, units=config.action_units)


def init(config: Config, spec: Spec, key: PRNGKeyArray, statistics: DatasetStatistics | None = None) -> Learner:
    """A learner before its first update. `statistics` are those of the data."""
    network = _network(config, spec, key)
    statistics = DatasetStatistics.identity(spec, config.action_units) if statistics is None else statistics
    return Learner(network, statistics, _optimiser(config).init(cast(Any, network)), jnp.zeros((), jnp.int32))


def _network(config: Config, spec: Spec, key: PRNGKeyArray) -> Network | ImageNetwork:
    return with_encoder(partial(Network, config), spec, key=key)


def _optimiser(config: Config) -> optax.GradientTransformation:
    rate = warmup_schedule(config.learning_rate, config.warmup, config.anneal_over)
    return adamw(rate, config.weight_decay, config.clip)


def loss(
    network: Network | ImageNetwork, statistics: DatasetStatistics, batch: Window, key: PRNGKeyArray | None = None
) -> Float[Array, ""]:
    """L. With a `key` dropout is on."""
    given = network(statistics.normaliser(batch.observations), key)
    return masked_mean(action_error(given, statistics.normalise_actions(batch.actions), statistics.squash), batch.mask)


def update(config: Config, learner: Learner, batch: Window, key: PRNGKeyArray) -> tuple[Learner, Metrics]:
    """One gradient step."""
    value, gradient = jax.value_and_grad(loss)(learner.network, learner.statistics, batch, key)
    network, state = descend(_optimiser(config), learner.network, gradient, learner.optimiser)
    metrics = {"loss": value, "gradient_norm": optax.tree.norm(gradient)}
    return Learner(network, learner.statistics, state, learner.updates + 1), metrics


class Cloned(Policy[LastStep]):
    """Decides one action from the newest observation, and holds it."""

    network: Network | ImageNetwork
    statistics: DatasetStatistics

    def init_state(self, command: Any) -> LastStep:
        refuse_command(command)
        return LastStep.empty(self.statistics.spec)

    def observe(self, state: LastStep, step: Step) -> LastStep:
        return LastStep.of(step)

    def decide(self, state: LastStep, key: PRNGKeyArray | None, length: int) -> tuple[Array, LastStep]:
        given = self.network(self.statistics.normaliser(state.observation))
        return hold_action(self.statistics.to_action(given, key), length), state


def policy(config: Config, learner: Learner) -> Cloned:
    """The deployable part: the network and the data's statistics."""
    return Cloned(learner.network, learner.statistics)


def new_policy(config: Config, spec: Spec, key: PRNGKeyArray) -> Cloned:
    """`policy` of what `init` gives, without what only learns."""
    return Cloned(_network(config, spec, key), DatasetStatistics.identity(spec, config.action_units))


def batches(config: Config) -> BatchSpec:
    """Single steps."""
    return BatchSpec(config.batch_size, 1)


def plan_length(config: Config) -> int:
    """Primitive steps between decisions while training."""
    return 1
