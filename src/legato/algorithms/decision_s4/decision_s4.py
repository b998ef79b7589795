"""Decision S4 (Bar-David et al. 2023, arXiv 2306.05167): trained as a convolution on episodes, acting as a recurrence.

    e_t  = [W_s s_t, W_a a_{t-1}, W_R R_t]             R_t: the return-to-go; a_{-1} = 0
    u    = dropout(W_pre gelu(W_in e))
    u   += gelu(W_mix dropout(gelu(S(u))))             for each block; S: a state-space layer over time
    a^_t = tanh(W_out u_t)                             logits where actions are a choice
    L    = MSE(a^, a)                                  cross-entropy for a choice

One vector per step, where the Decision Transformer has three tokens. Acting costs the same at any length of history.
"""

from __future__ import annotations

from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from legato.algorithms import action_units
from legato.algorithms.decision_s4.config import DS4 as Config
from legato.data import dataset_statistics
from legato.data import trajectories as logs
from legato.data.dataset_statistics import DatasetStatistics
from legato.data.spec import Spec
from legato.data.trajectories import Trajectories
from legato.data.windows import BatchSpec, Window
from legato.losses.imitation import action_error
from legato.losses.means import masked_mean, weighted_mean
from legato.nn.layers import LayerNorm, drop, dropout_bits
from legato.nn.mlp import Linear, apply_rows
from legato.nn.optimisation import descend, optax, warmup_schedule
from legato.nn.ssm import S4, S4D, S5, groups
from legato.policy import Policy, Step, hold_action, return_to_go, target_return

Metrics = dict[str, Float[Array, ""]]
for_data = action_units.for_data
System = S4 | S4D | S5


class Block(eqx.Module):
    """A state-space layer and the layer that mixes its channels."""

    norm: LayerNorm | None
    system: System
    mix: Linear

    def __init__(self, config: Config, *, key: PRNGKeyArray):
        k_system, k_mix = jax.random.split(key)
        h, n = config.channels, config.order
        self.norm = LayerNorm(h) if config.norm else None
        if config.core == "s4":
            self.system = S4(h, n, key=k_system)
        elif config.core == "s4d":
            kind = config.discretisation
            self.system = S4D(h, n, spectrum=config.spectrum, discretisation=kind, key=k_system)
        else:
            self.system = S5(h, n, discretisation=config.discretisation, key=k_system)
        self.mix = Linear.uniform(h, h, h**-0.5, key=k_mix)


class Network(eqx.Module):
    """Embeddings, blocks and head. Actions are in units of their bounds, [-1, 1], or one number of a choice."""

    observation: Linear
    action: Linear
    ret: Linear
    into: Linear
    pre: Linear
    blocks: tuple[Block, ...]
    out: Float[Array, "H act"]
    choices: int | None = eqx.field(static=True)
    returns: bool = eqx.field(static=True)
    history: bool = eqx.field(static=True)
    residual: bool = eqx.field(static=True)
    dropout: float = eqx.field(static=True)

    def __init__(self, config: Config, spec: Spec, *, key: PRNGKeyArray):
        k_s, k_a, k_r, k_in, k_pre, k_out, *keys = jax.random.split(key, 6 + config.layers)
        e, h, a = config.embedding, config.channels, spec.choices or spec.action_size

        def linear(inputs: int, outputs: int, key: PRNGKeyArray) -> Linear:
            return Linear.uniform(inputs, outputs, inputs**-0.5, key=key)

        self.observation = linear(spec.observation_size, e, k_s)
        self.action, self.ret = linear(a, e, k_a), linear(1, e, k_r)
        self.into, self.pre = linear(3 * e, h, k_in), linear(h, h, k_pre)
        self.blocks = tuple(Block(config, key=k) for k in keys)
        self.out = jax.random.uniform(k_out, (h, a), minval=-(h**-0.5), maxval=h**-0.5)
        self.choices, self.returns, self.history = spec.choices, config.returns, config.history
        self.residual, self.dropout = config.residual, config.dropout

    def entry(self) -> Linear:
        """W_in e as one layer of (s, a, R): the embeddings are linear, and so need not be formed at every step."""
        embeddings = (self.observation, self.action, self.ret)
        parts = jnp.split(self.into.weight, len(embeddings))
        weight = jnp.concatenate([layer.weight @ part for layer, part in zip(embeddings, parts, strict=True)])
        bias = jnp.concatenate([layer.bias for layer in embeddings]) @ self.into.weight + self.into.bias
        return eqx.tree_at(lambda layer: (layer.weight, layer.bias), self.into, (weight, bias))

    def encode(
        self,
        entry: Linear,
        observations: Float[Array, "*batch obs"],
        previous: Float[Array, "*batch act"],
        returns: Float[Array, "*batch"],
        bits: Array | None = None,
    ) -> Float[Array, "*batch H"]:
        """What enters the first block. `previous` is zero where there is none; `entry` is `entry()`."""
        previous = previous if self.history else jnp.zeros_like(previous)
        returns = returns if self.returns else jnp.zeros_like(returns)
        given = jnp.concatenate([observations, previous, returns[..., None]], axis=-1).astype(entry.weight.dtype)
        return drop(apply_rows(self.pre, jax.nn.gelu(apply_rows(entry, given))), self.dropout, bits)

    def mix_channels(
        self, block: Block, u: Float[Array, "*batch H"], y: Float[Array, "*batch H"], bits: Array | None = None
    ) -> Float[Array, "*batch H"]:
        """A block's output, from its input u and what its system made of that."""
        y = drop(jax.nn.gelu(y.astype(u.dtype)), self.dropout, bits)
        y = jax.nn.gelu(apply_rows(block.mix, y))
        return u + y if self.residual else y

    def __call__(
        self,
        observations: Float[Array, "*batch L obs"],
        previous: Float[Array, "*batch L act"],
        returns: Float[Array, "*batch L"],
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "*batch L act"]:
        """The head's output at every step of whole episodes: actions before the tanh, or logits."""
        bits: Any = [None] * (1 + len(self.blocks))
        if key is not None and self.dropout:
            bits = dropout_bits(key, (len(bits), *returns.shape, self.out.shape[0]))
        u = self.encode(self.entry(), observations, previous, returns, bits[0])
        for block, of_block in zip(self.blocks, bits[1:], strict=True):
            x = (u if block.norm is None else block.norm(u)).astype(jnp.float32)
            if self.history:
                y = block.system.convolve(x)
            else:  # every step is an episode of its own
                y = block.system.convolve(x[..., None, :])[..., 0, :]
            u = self.mix_channels(block, u, y, of_block)
        return u @ self.out

    def start(self) -> tuple[Any, ...]:
        """The systems' states before an episode."""
        return tuple(block.system.start() for block in self.blocks)

    def discrete(self) -> tuple[Any, ...]:
        """The systems, ready to be stepped."""
        return tuple(block.system.discrete() for block in self.blocks)

    def step(
        self,
        entry: Linear,
        discrete: tuple[Any, ...],
        states: tuple[Any, ...],
        observation: Float[Array, "*batch obs"],
        previous: Float[Array, "*batch act"],
        ret: Float[Array, "*batch"],
    ) -> tuple[tuple[Any, ...], Float[Array, "*batch H"]]:
        """One step of the recurrence, of `entry()` and `discrete()`: the states after it, and what the head reads."""
        u = self.encode(entry, observation, previous, ret)
        after = []
        for block, system, x in zip(self.blocks, discrete, states, strict=True):
            x = x if self.history else block.system.start()
            x, y = block.system.step(system, x, u if block.norm is None else block.norm(u))
            u = self.mix_channels(block, u, y)
            after.append(x)
        return tuple(after), u

    def respond(
        self,
        states: tuple[Any, ...],
        observation: Float[Array, "*batch obs"],
        previous: Float[Array, "*batch act"],
        ret: Float[Array, "*batch"],
    ) -> Float[Array, "*batch act"]:
        """What the head gives after one step from these states, for many rows; the states after it are not formed."""
        u = self.encode(self.entry(), observation, previous, ret)
        for block, system, x in zip(self.blocks, self.discrete(), states, strict=True):
            x = x if self.history else block.system.start()
            u = self.mix_channels(block, u, block.system.respond(system, x, u if block.norm is None else block.norm(u)))
        return u @ self.out


class Learner(eqx.Module):
    """Everything Decision S4 carries while training from logs."""

    network: Network
    statistics: DatasetStatistics
    optimiser: optax.OptState
    updates: Int[Array, ""]


def select_data(config: Config, data: Trajectories, limit: int | None = None) -> Trajectories:
    """The data as it is learnt from. Raises `LegatoError` where rewards are missing that are read."""
    data = logs.require_rewards(data, config.returns)
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
    """AdamW; the systems' parameters have no decay, and their cores a step size of their own, or none."""
    rate, core = (
        warmup_schedule(size, config.warmup, config.anneal_over)
        for size in (config.learning_rate, config.core_learning_rate)
    )
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.multi_transform(
            {
                "core": optax.set_to_zero() if config.freeze_core else optax.adam(core),
                "readout": optax.adam(rate),
                "rest": optax.adamw(rate, weight_decay=config.weight_decay),
            },
            groups,
        ),
    )


def loss(
    network: Network,
    statistics: DatasetStatistics,
    config: Config,
    batch: Window,
    key: PRNGKeyArray | None = None,
    weight: Float[Array, "*batch"] | None = None,
) -> Float[Array, ""]:
    """L: the mean over valid steps (and the action's numbers), of episodes weighed. With a `key` dropout is on."""
    actions, previous = statistics.normalise_actions(batch.actions), statistics.normalise_actions(batch.previous)
    if network.choices is not None:
        previous = jax.nn.one_hot(previous, network.choices)
    previous = jnp.where(batch.timesteps[..., None] > 0, previous, 0)
    returns, observations, mask = (
        statistics.scale_return(batch.returns_to_go),
        statistics.normaliser(batch.observations),
        batch.mask,
    )
    if config.paper_alignment:
        actions, previous, observations, mask = actions[:, 1:], previous[:, 1:], observations[:, 1:], mask[:, 1:]
        returns = returns[:, :-1]
    given = network(observations, previous, returns, key).astype(jnp.float32)
    error = action_error(given, actions, statistics.squash if config.squash else None)
    return masked_mean(error, mask) if weight is None else weighted_mean(error, mask, weight[..., None])


def update(config: Config, learner: Learner, batch: Window, key: PRNGKeyArray) -> tuple[Learner, Metrics]:
    """One gradient step."""

    def of(network: Network) -> Float[Array, ""]:
        if config.freeze_core:  # here, so that what is frozen does not count when gradients are clipped
            network = jax.tree.map(
                lambda leaf, group: jax.lax.stop_gradient(leaf) if group == "core" else leaf, network, groups(network)
            )
        if config.dtype != "float32":
            dense = jax.tree.map(lambda label: label == "rest", groups(network))
            network = jax.tree.map(lambda leaf, half: leaf.astype(config.dtype) if half else leaf, network, dense)
        return loss(network, learner.statistics, config, batch, key)

    value, gradient = jax.value_and_grad(of)(learner.network)
    network, state = descend(_optimiser(config), learner.network, gradient, learner.optimiser)
    metrics = {"loss": value, "gradient_norm": optax.tree.norm(gradient)}
    return Learner(network, learner.statistics, state, learner.updates + 1), metrics


class States(eqx.Module):
    """The systems' states, what the last block made of the newest step, and the return-to-go."""

    systems: tuple[Any, ...]
    read: Float[Array, " H"]
    return_to_go: Float[Array, ""]


class Recurrent(Policy[States]):
    """Steps the recurrence once per primitive step. The systems are kept discretised, the embeddings in one layer."""

    network: Network
    entry: Linear
    discrete: tuple[Any, ...]
    statistics: DatasetStatistics
    gamma: float = eqx.field(static=True)
    delay_rewards: bool = eqx.field(static=True)
    squash: bool = eqx.field(static=True)

    def init_state(self, command: Any) -> States:
        target = target_return(command, self.statistics.target, read=self.network.returns)
        return States(self.network.start(), jnp.zeros(self.network.out.shape[0]), target)

    def observe(self, state: States, step: Step) -> States:
        network, statistics = self.network, self.statistics
        togo = return_to_go(state.return_to_go, step, self.gamma, delay_rewards=self.delay_rewards)
        executed = statistics.normalise_executed(step.executed)
        previous = executed if network.choices is None else jax.nn.one_hot(executed, network.choices)
        previous = jnp.where(step.first, 0, previous)
        given = statistics.normaliser(step.observation), previous, statistics.scale_return(togo)
        systems, u = network.step(self.entry, self.discrete, state.systems, *given)
        return States(systems, u, togo)

    def decide(self, state: States, key: PRNGKeyArray | None, length: int) -> tuple[Array, States]:
        given = state.read @ self.network.out
        return hold_action(self.statistics.to_action(given, key, squash=self.squash), length), state


def policy(config: Config, learner: Learner) -> Recurrent:
    """The deployable part: the network, its embeddings and systems made ready, and the data's statistics."""
    return recurrent(config, learner.network, learner.statistics)


def new_policy(config: Config, spec: Spec, key: PRNGKeyArray) -> Recurrent:
    """`policy` of what `init` gives, without what only learns."""
    return recurrent(config, Network(config, spec, key=key), DatasetStatistics.identity(spec, config.action_units))


def recurrent(config: Config, network: Network, statistics: DatasetStatistics) -> Recurrent:
    """The network, ready to act."""
    return Recurrent(
        network, network.entry(), network.discrete(), statistics, config.gamma, config.delay_rewards, config.squash
    )


def batches(config: Config) -> BatchSpec:
    """Whole episodes."""
    return BatchSpec(config.batch_size, config.length, whole=True, discount=config.gamma)


def plan_length(config: Config) -> int:
    """Primitive steps between decisions while training."""
    return 1
