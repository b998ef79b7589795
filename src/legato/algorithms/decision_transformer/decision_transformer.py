"""Decision Transformer (Chen et al. 2021, arXiv 2106.01345): the next action, given the return-to-go.

    tokens  R_1 s_1 a_1  R_2 s_2 a_2 ...      R_t = sum_{u >= t} r_u, the return-to-go
    x       = dropout(norm(W_token token + time_t))
    a^_t    = tanh(W transformer(x)[s_t])     from R_1 s_1 a_1 ... R_t s_t; logits where actions are a choice
    L       = MSE(a^, a)                      cross-entropy for a choice

At the start R_1 is the return asked for; after each step the reward is subtracted. Trained on windows of K steps,
the policy re-encodes its last K steps at every decision, as published. Trained with a banded mask (`decoding="cache"`),
a token sees the 3K - 1 before it, and a cache of keys and values computes what was trained one step at a time.
"""

from __future__ import annotations

from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from legato.algorithms import action_units
from legato.algorithms.decision_transformer.config import DT as Config
from legato.data import dataset_statistics
from legato.data import trajectories as logs
from legato.data.dataset_statistics import DatasetStatistics
from legato.data.spec import Spec
from legato.data.trajectories import Trajectories
from legato.data.windows import BatchSpec, Window
from legato.errors import LegatoError
from legato.losses.imitation import action_error
from legato.losses.means import masked_mean
from legato.nn.layers import LayerNorm, drop, dropout_bits
from legato.nn.mlp import Linear
from legato.nn.optimisation import adamw, descend, mean_gradient, optax, warmup_schedule
from legato.nn.transformer import Cache, Transformer
from legato.policy import Policy, Step, hold_action, return_to_go, target_return

Metrics = dict[str, Float[Array, ""]]
for_data = action_units.for_data


class Unused(eqx.Module):
    """What the official network carries without using it: heads for observation and return, and a table of one word."""

    observation: Linear
    ret: Linear
    word: Float[Array, "1 size"]


class Network(eqx.Module):
    """Embeddings, trunk and head. Actions are in units of their bounds, [-1, 1], or one number of a choice."""

    ret: Linear
    observation: Linear
    action: Linear
    time: Float[Array, "steps size"] | None
    norm: LayerNorm
    trunk: Transformer
    head: Linear
    unused: Unused | None
    choices: int | None = eqx.field(static=True)
    returns: bool = eqx.field(static=True)
    history: bool = eqx.field(static=True)
    dropout: float = eqx.field(static=True)

    def __init__(self, config: Config, spec: Spec, *, key: PRNGKeyArray):
        k_r, k_s, k_a, k_time, k_trunk, k_head, k_unused = jax.random.split(key, 7)
        d, s, a = config.size, spec.observation_size, spec.choices or spec.action_size

        def linear(inputs: int, outputs: int, key: PRNGKeyArray) -> Linear:  # as in the official code
            return Linear.uniform(inputs, outputs, inputs**-0.5, key=key)

        self.ret, self.observation, self.action = linear(1, d, k_r), linear(s, d, k_s), linear(a, d, k_a)
        steps = config.episode_length
        self.time = jax.random.normal(k_time, (steps, d)) if config.positions == "timestep" else None
        self.norm = LayerNorm(d)
        self.trunk = Transformer(
            d,
            config.layers,
            config.heads,
            activation=config.activation,
            positions="rotary" if config.positions == "rotary" else "none",
            band=3 * config.context if config.decoding == "cache" else None,
            dropout=config.dropout,
            key=k_trunk,
        )
        self.head = linear(d, a, k_head)
        k_1, k_2, k_3 = jax.random.split(k_unused, 3)
        self.unused = (
            Unused(linear(d, s, k_1), linear(d, 1, k_2), 0.02 * jax.random.normal(k_3, (1, d)))
            if config.unused
            else None
        )
        self.choices, self.returns, self.history = spec.choices, config.returns, config.history
        self.dropout = config.dropout

    def token(
        self, layer: Linear, x: Float[Array, "*batch inputs"], timesteps: Int[Array, "*batch"]
    ) -> Float[Array, "*batch size"]:
        """A token of one kind at its time."""
        x = layer(x.astype(layer.weight.dtype))
        if self.time is not None:
            x = x + self.time[jnp.clip(timesteps, 0, len(self.time) - 1)]
        return self.norm(x)

    def read_returns(self, returns: Float[Array, "*batch"]) -> Float[Array, "*batch 1"]:
        return (returns if self.returns else jnp.zeros_like(returns))[..., None]

    def encode_actions(self, actions: Float[Array, "*batch act"] | Int[Array, "*batch"]) -> Float[Array, "*batch act"]:
        return actions if self.choices is None else jax.nn.one_hot(actions, self.choices)

    def __call__(
        self,
        returns: Float[Array, "*batch K"],
        observations: Float[Array, "*batch K obs"],
        actions: Float[Array, "*batch K act"] | Int[Array, "*batch K"],
        timesteps: Int[Array, "*batch K"],
        mask: Bool[Array, "*batch K"],
        *,
        last: bool = False,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "*batch read outputs"]:
        """What the head gives at each step, or at the last one only: actions before the tanh, or logits."""
        k_embed, k_trunk = (None, None) if key is None else jax.random.split(key)
        x = self.triples(returns, observations, actions, timesteps)
        x = x if k_embed is None else drop(x, self.dropout, dropout_bits(k_embed, x.shape))
        if not self.history:  # each step alone
            x, mask = (x[..., -1:, :, :], mask[..., -1:]) if last else (x, mask)
            x, mask = x.reshape(-1, 3, x.shape[-1]), mask.reshape(-1, 1)
        tokens = 3 * mask.shape[-1]
        x = x.reshape(*mask.shape[:-1], tokens, x.shape[-1])
        read = slice(tokens - 2, tokens - 1) if last else slice(1, None, 3)
        y = self.trunk(x, jnp.repeat(mask, 3, axis=-1), read=read, key=k_trunk)  # the last block: at states only
        return self.head(y.reshape(*observations.shape[:-2], -1, y.shape[-1]))

    def triples(
        self,
        returns: Float[Array, "*batch K"],
        observations: Float[Array, "*batch K obs"],
        actions: Float[Array, "*batch K act"] | Int[Array, "*batch K"],
        timesteps: Int[Array, "*batch K"],
    ) -> Float[Array, "*batch K 3 size"]:
        """The tokens R, s and a of each step."""
        kinds = (
            (self.ret, self.read_returns(returns)),
            (self.observation, observations),
            (self.action, self.encode_actions(actions)),
        )
        return jnp.stack([self.token(layer, value, timesteps) for layer, value in kinds], axis=-2)

    def attention(
        self,
        returns: Float[Array, "*batch K"],
        observations: Float[Array, "*batch K obs"],
        actions: Float[Array, "*batch K act"] | Int[Array, "*batch K"],
        timesteps: Int[Array, "*batch K"],
        mask: Bool[Array, "*batch K"],
    ) -> Float[Array, "*batch layers heads tokens tokens"]:
        """How much each of the 3K tokens attends to each other in every layer; rows sum to 1."""
        x = self.triples(returns, observations, actions, timesteps)
        x = x.reshape(*mask.shape[:-1], 3 * mask.shape[-1], x.shape[-1])
        return self.trunk.attention(x, jnp.repeat(mask, 3, axis=-1))


class Learner(eqx.Module):
    """Everything the Decision Transformer carries while training."""

    network: Network
    statistics: DatasetStatistics
    optimiser: optax.OptState
    updates: Int[Array, ""]


def select_data(config: Config, data: Trajectories, limit: int | None = None) -> Trajectories:
    """The data as it is learnt from. `limit`: the steps of the longest episode that will be played, where known.

    Raises `LegatoError` where rewards are missing that are read, or an episode is too long.
    """
    data = logs.require_rewards(data, config.returns)
    longest = max(int(data.lengths.max()), limit or 0)
    if config.positions == "timestep" and longest > config.episode_length:
        held = int(data.lengths.max()) == longest
        who = f"{data.about.name} has an episode" if held else "its environment has episodes"
        raise LegatoError(
            f"{who} of {longest} steps, this model a table of {config.episode_length}: "
            "raise `episode_length`, or choose `positions=rotary`"
        )
    return logs.delay_rewards(data) if config.delay_rewards else data


def statistics(config: Config, spec: Spec, data: Trajectories) -> DatasetStatistics:
    """What the policy keeps of the data."""
    return dataset_statistics.of(data, spec, gamma=config.gamma, scale=config.scale, units=config.action_units)


def init(config: Config, spec: Spec, key: PRNGKeyArray, statistics: DatasetStatistics | None = None) -> Learner:
    """A learner before its first update. `statistics` are those of the data."""
    network = Network(config, spec, key=key)
    statistics = DatasetStatistics.identity(spec, config.action_units) if statistics is None else statistics
    return Learner(network, statistics, _optimiser(config).init(cast(Any, network)), jnp.zeros((), jnp.int32))


def _optimiser(config: Config) -> optax.GradientTransformation:
    rate = warmup_schedule(config.learning_rate, config.warmup, config.anneal_over)
    return adamw(rate, config.weight_decay, config.clip)


def loss(
    network: Network, statistics: DatasetStatistics, batch: Window, key: PRNGKeyArray | None = None
) -> Float[Array, ""]:
    """L: the mean over valid steps (and the action's numbers). With a `key` dropout is on."""
    actions = statistics.normalise_actions(batch.actions)
    given = network(
        statistics.scale_return(batch.returns_to_go),
        statistics.normaliser(batch.observations),
        actions,
        batch.timesteps,
        batch.mask,
        key=key,
    ).astype(jnp.float32)
    return masked_mean(action_error(given, actions, statistics.squash), batch.mask)


def update(config: Config, learner: Learner, batch: Window, key: PRNGKeyArray) -> tuple[Learner, Metrics]:
    """One gradient step."""

    def of(network: Network, batch: Window, key: PRNGKeyArray) -> tuple[Float[Array, ""], None]:
        if config.dtype != "float32":
            network = jax.tree.map(lambda leaf: leaf.astype(config.dtype), network)
        return loss(network, learner.statistics, batch, key), None

    tokens = 3 * batch.mask.shape[-1]
    (value, _), gradient = mean_gradient(of, learner.network, batch, batch.mask.sum(axis=-1), key, tokens)
    network, state = descend(_optimiser(config), learner.network, gradient, learner.optimiser)
    metrics = {"loss": value, "gradient_norm": optax.tree.norm(gradient)}
    return Learner(network, learner.statistics, state, learner.updates + 1), metrics


# --- acting ---


class Acting(eqx.Module):
    """What both policies have: the network, and the data's statistics."""

    network: Network
    statistics: DatasetStatistics
    gamma: float = eqx.field(static=True)
    delay_rewards: bool = eqx.field(static=True)

    def return_to_go(self, before: Float[Array, ""], step: Step) -> Float[Array, ""]:
        """The return asked for at first, then less each reward."""
        return return_to_go(before, step, self.gamma, delay_rewards=self.delay_rewards)

    def warning(self, timestep: Int[Array, "*members"]) -> str | None:
        """What to say of an episode that is longer than the table of steps, for which time then stands still."""
        table = self.network.time
        if table is None or (longest := int(np.max(timestep)) + 1) <= (rows := table.shape[-2]):
            return None
        return f"an episode had {longest} steps, the policy's table {rows}: for it time stood still from there on"


class History(eqx.Module):
    """The last K steps, newest last; steps before the episode are masked. The newest has no action yet."""

    returns: Float[Array, " K"]
    observations: Float[Array, "K obs"]
    actions: Float[Array, "K act"] | Int[Array, " K"]
    timestep: Int[Array, ""]
    """of the newest step; -1 before the first"""


class Reencoding(Policy[History]):
    """Encodes its last K steps anew at every decision, as published."""

    acting: Acting
    context: int = eqx.field(static=True)

    def init_state(self, command: Any) -> History:
        statistics, k = self.acting.statistics, self.context
        target = target_return(command, statistics.target, read=self.acting.network.returns)
        spec = statistics.spec
        actions = jnp.zeros((k, spec.action_size)) if spec.choices is None else jnp.zeros(k, jnp.int32)
        observations = jnp.zeros((k, spec.observation_size))
        return History(jnp.broadcast_to(target, k), observations, actions, jnp.full((), -1, jnp.int32))

    def observe(self, state: History, step: Step) -> History:
        def pushed(row: Array, new: Array) -> Array:
            return jnp.concatenate([row[1:], new[None]])

        actions = state.actions.at[-1].set(self.acting.statistics.normalise_executed(step.executed))
        return History(
            pushed(state.returns, self.acting.return_to_go(state.returns[-1], step)),
            pushed(state.observations, self.acting.statistics.normaliser(step.observation)),
            pushed(actions, jnp.zeros_like(actions[0])),
            state.timestep + 1,
        )

    def given(self, state: History) -> Float[Array, " outputs"]:
        """What the head gives."""
        timesteps = state.timestep + jnp.arange(1 - self.context, 1)
        mask = timesteps >= 0
        returns = self.acting.statistics.scale_return(state.returns)
        return self.acting.network(returns, state.observations, state.actions, timesteps, mask, last=True)[-1]

    def decide(self, state: History, key: PRNGKeyArray | None, length: int) -> tuple[Array, History]:
        return hold_action(self.acting.statistics.to_action(self.given(state), key), length), state

    def warning(self, state: History) -> str | None:
        return self.acting.warning(state.timestep)


class Reading(eqx.Module):
    """Keys and values of the last tokens, and what the trunk made of the newest observation."""

    cache: Cache
    read: Float[Array, " size"]
    return_to_go: Float[Array, ""]
    timestep: Int[Array, ""]


class Caching(Policy[Reading]):
    """Reads each step once, into a cache as wide as the band that was trained."""

    acting: Acting

    def init_state(self, command: Any) -> Reading:
        network, statistics = self.acting.network, self.acting.statistics
        target = target_return(command, statistics.target, read=self.acting.network.returns)
        cache = network.trunk.start()
        cache = eqx.tree_at(lambda c: c.seen, cache, cache.seen - 1)  # no action comes before the first observation
        return Reading(cache, jnp.zeros(network.norm.scale.size), target, jnp.full((), -1, jnp.int32))

    def observe(self, state: Reading, step: Step) -> Reading:
        network, statistics, t = self.acting.network, self.acting.statistics, state.timestep + 1
        togo = self.acting.return_to_go(state.return_to_go, step)
        a = network.token(
            network.action, network.encode_actions(self.acting.statistics.normalise_executed(step.executed)), t - 1
        )
        r = network.token(network.ret, network.read_returns(statistics.scale_return(togo)), t)
        s = network.token(network.observation, statistics.normaliser(step.observation), t)
        cache, y = network.trunk.step(state.cache, jnp.stack([a, r, s]))
        return Reading(cache, y[-1], togo, t)

    def given(self, state: Reading) -> Float[Array, " outputs"]:
        """What the head gives."""
        return self.acting.network.head(state.read)

    def decide(self, state: Reading, key: PRNGKeyArray | None, length: int) -> tuple[Array, Reading]:
        return hold_action(self.acting.statistics.to_action(self.given(state), key), length), state

    def warning(self, state: Reading) -> str | None:
        return self.acting.warning(state.timestep)


def policy(config: Config, learner: Learner) -> Reencoding | Caching:
    """The deployable part: the network and the data's statistics."""
    return reader(config, learner.network, learner.statistics, config.context)


def new_policy(config: Config, spec: Spec, key: PRNGKeyArray) -> Reencoding | Caching:
    """`policy` of what `init` gives, without what only learns."""
    return reader(
        config, Network(config, spec, key=key), DatasetStatistics.identity(spec, config.action_units), config.context
    )


def reader(config: Config, network: Network, statistics: DatasetStatistics, context: int) -> Reencoding | Caching:
    """A network at work. One that re-encodes windows reads `context` steps."""
    network = eqx.tree_at(lambda n: n.unused, network, None, is_leaf=lambda leaf: leaf is None)
    acting = Acting(network, statistics, config.gamma, config.delay_rewards)
    if config.decoding == "cache" and config.history:
        return Caching(acting)
    return Reencoding(acting, context if config.history else 1)


def batches(config: Config) -> BatchSpec:
    """Windows of K steps; for a cache half as many, twice as long: what the band hides is then met in training."""
    if config.decoding == "cache":
        return BatchSpec(-(-config.batch_size // 2), 2 * config.context, discount=config.gamma)
    return BatchSpec(config.batch_size, config.context, discount=config.gamma)


def plan_length(config: Config) -> int:
    """Primitive steps between decisions while training."""
    return 1
