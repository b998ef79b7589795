"""Online Decision Transformer (Zheng, Zhang & Grover 2022, arXiv 2202.05607), as it is trained from logs.

A Decision Transformer whose actions are drawn, a ~ tanh N(mu, sigma), and stay uncertain enough to explore by:

    L     = -mean log pi(a | R_1 s_1 a_1 ... R_t s_t) - lambda mean H        over the steps of windows
    L_lam = lambda (mean H - beta),  beta = -|A|                             H = -log pi of one drawn action

A greedy decision is tanh(mu). `online_decision_transformer_finetuning` lets it go on by acting.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from legato.algorithms.decision_transformer import attention as dt_attention
from legato.algorithms.decision_transformer import decision_transformer as dt
from legato.algorithms.decision_transformer.config import ODT as Config
from legato.algorithms.decision_transformer.decision_transformer import (
    Caching,
    Network,
    Reencoding,
)
from legato.algorithms.protocol import Attention
from legato.data.dataset_statistics import DatasetStatistics
from legato.data.spec import Spec
from legato.data.windows import BatchSpec, Window
from legato.errors import LegatoError
from legato.losses.means import masked_mean
from legato.nn.mlp import Linear
from legato.nn.optimisation import descend, mean_gradient, optax, warmup_schedule
from legato.policy import Policy, Step, hold_action

Metrics = dict[str, Float[Array, ""]]
LOG_STD = (-5.0, 2.0)
select_data, statistics = dt.select_data, dt.statistics


class Learner(eqx.Module):
    """Everything it carries while training. The network gives a mean and a deviation for every number of an action."""

    network: Network
    log_multiplier: Float[Array, ""]
    """log lambda"""
    statistics: DatasetStatistics
    optimisers: dict[str, optax.OptState]
    updates: Int[Array, ""]


def init(config: Config, spec: Spec, key: PRNGKeyArray, statistics: DatasetStatistics | None = None) -> Learner:
    """A learner before its first update. Raises `LegatoError` where actions are choices."""
    network = _network(config, spec, key)
    log_multiplier = jnp.log(jnp.asarray(config.multiplier, jnp.float32))
    of_network, of_multiplier = optimisers(config)
    states = {"network": of_network.init(network), "multiplier": of_multiplier.init(log_multiplier)}  # type: ignore[arg-type]
    statistics = DatasetStatistics.identity(spec) if statistics is None else statistics
    return Learner(network, log_multiplier, statistics, states, jnp.zeros((), jnp.int32))


def _network(config: Config, spec: Spec, key: PRNGKeyArray) -> Network:
    if spec.choices is not None:
        raise LegatoError("the Online Decision Transformer draws actions that are numbers, not choices: train dt")
    k_network, k_head = jax.random.split(key)
    network = Network(config, spec, key=k_network)
    draw = jax.nn.initializers.orthogonal()  # mu and log sigma each for themselves
    weight = jnp.concatenate([draw(k, (config.size, spec.action_size)) for k in jax.random.split(k_head)], axis=-1)
    head = Linear.normal(config.size, 2 * spec.action_size, 0.0, key=k_head)
    return eqx.tree_at(lambda n: n.head, network, eqx.tree_at(lambda layer: layer.weight, head, weight))


def optimisers(config: Config) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """Of the network and of log lambda."""
    rate = warmup_schedule(config.learning_rate, config.warmup, config.anneal_over)
    of_network = make_optimiser(config.optimiser, rate, config.weight_decay, config.clip)
    return of_network, optax.adam(config.multiplier_learning_rate)


def make_optimiser(optimiser: str, rate: optax.Schedule, decay: float, clip: float) -> optax.GradientTransformation:
    """LAMB or AdamW, on a gradient of global norm `clip` at most."""
    of = lamb if optimiser == "lamb" else optax.adamw
    return optax.chain(optax.clip_by_global_norm(clip), of(rate, weight_decay=decay))


def lamb(rate: optax.Schedule, weight_decay: float) -> optax.GradientTransformation:
    """LAMB (You et al. 2020, arXiv 1904.00962) as the official code has it: epsilon 1e-8, and a trust ratio for mu and
    one for log sigma, whose weights lie side by side in the network's head.
    """
    one = optax.scale_by_trust_ratio()

    def update(change: Network, state: optax.OptState, params: Network | None = None) -> tuple[Network, optax.OptState]:
        assert params is not None
        whole, _ = one.update(change, state, params)  # type: ignore[arg-type]
        of_change, of_params = (jax.tree.map(lambda x: jnp.split(x, 2, axis=-1), net.head) for net in (change, params))
        halves, _ = one.update(of_change, state, of_params)  # type: ignore[arg-type]
        head = jax.tree.map(lambda _, parts: jnp.concatenate(parts, axis=-1), change.head, halves)
        return eqx.tree_at(lambda network: network.head, whole, head), state

    return optax.chain(
        optax.scale_by_adam(eps=1e-8),
        optax.add_decayed_weights(weight_decay),
        optax.GradientTransformation(one.init, update),  # type: ignore[arg-type]
        optax.scale_by_learning_rate(rate),
    )


def split_outputs(
    given: Float[Array, "*batch outputs"],
) -> tuple[Float[Array, "*batch act"], Float[Array, "*batch act"]]:
    """mu and log sigma, the latter within its bounds, from what the head gives."""
    mean, raw = jnp.split(given, 2, axis=-1)
    low, high = LOG_STD
    return mean, low + 0.5 * (high - low) * (jnp.tanh(raw) + 1)


def log_density(
    mean: Float[Array, "*batch act"], log_std: Float[Array, "*batch act"], drawn: Float[Array, "*batch act"]
) -> Float[Array, "*batch"]:
    """log pi of tanh(drawn), an action in units of its bounds; log(1 - tanh^2 u) = 2 (log 2 - u - softplus(-2u))."""
    normal = -0.5 * ((drawn - mean) * jnp.exp(-log_std)) ** 2 - log_std - 0.5 * jnp.log(2 * jnp.pi)
    return jnp.sum(normal - 2 * (jnp.log(2.0) - drawn - jax.nn.softplus(-2 * drawn)), axis=-1)


def loss(
    network: Network,
    statistics: DatasetStatistics,
    batch: Window,
    multiplier: Float[Array, ""],
    noise: Array,
    key: PRNGKeyArray | None,
    action_clip: float,
) -> tuple[Float[Array, ""], tuple[Float[Array, ""], Float[Array, ""]]]:
    """L, and with it -mean log pi(a) and the mean entropy. With a `key` dropout is on; `noise` is standard normal."""
    actions = statistics.normalise_actions(batch.actions)
    given = outputs(network, statistics, batch, key)
    mean, log_std = split_outputs(given)
    likelihood = log_density(mean, log_std, jnp.arctanh(jnp.clip(actions, action_clip - 1, 1 - action_clip)))
    entropy = -log_density(mean, log_std, mean + jnp.exp(log_std) * noise)
    nll, entropy = (masked_mean(values, batch.mask) for values in (-likelihood, entropy))
    return nll - multiplier * entropy, (nll, entropy)


def outputs(
    network: Network, statistics: DatasetStatistics, batch: Window, key: PRNGKeyArray | None = None
) -> Float[Array, "batch K outputs"]:
    """What the head gives at every step of windows."""
    return network(
        statistics.scale_return(batch.returns_to_go),
        statistics.normaliser(batch.observations),
        statistics.normalise_actions(batch.actions),
        batch.timesteps,
        batch.mask,
        key=key,
    ).astype(jnp.float32)


def update(config: Config, learner: Learner, batch: Window, key: PRNGKeyArray) -> tuple[Learner, Metrics]:
    """One gradient step of the network, then one of log lambda."""
    multiplier = jnp.exp(learner.log_multiplier)

    def of(
        network: Network, batch: Window, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], tuple[Float[Array, ""], Float[Array, ""]]]:
        if config.dtype != "float32":
            network = jax.tree.map(lambda leaf: leaf.astype(config.dtype), network)
        k_noise, k_drop = jax.random.split(key)
        noise = jax.random.normal(k_noise, batch.actions.shape)
        return loss(network, learner.statistics, batch, multiplier, noise, k_drop, config.action_clip)

    tokens = 3 * batch.mask.shape[-1]
    (value, (nll, entropy)), g = mean_gradient(of, learner.network, batch, batch.mask.sum(axis=-1), key, tokens)
    of_network, of_multiplier = optimisers(config)
    network, state = descend(of_network, learner.network, g, learner.optimisers["network"])
    log_multiplier, m_state = descend(
        of_multiplier,
        learner.log_multiplier,
        multiplier * (entropy - entropy_bound(config, learner.statistics.spec)),
        learner.optimisers["multiplier"],
    )
    metrics = {"loss": value, "nll": nll, "entropy": entropy, "multiplier": multiplier}
    states = {"network": state, "multiplier": m_state}
    return Learner(network, log_multiplier, learner.statistics, states, learner.updates + 1), metrics


def entropy_bound(config: Config, spec: Spec) -> float:
    """beta."""
    return config.entropy * spec.action_size


# --- acting ---


class Stochastic(Policy[Any]):
    """Reads as a Decision Transformer does, and draws its action; greedy, it takes tanh(mu)."""

    reader: Reencoding | Caching
    log_multiplier: Float[Array, ""]
    """what fine-tuning continues with"""

    @property
    def statistics(self) -> DatasetStatistics:
        return self.reader.acting.statistics

    def init_state(self, command: Any) -> Any:
        return self.reader.init_state(command)

    def observe(self, state: Any, step: Step) -> Any:
        return self.reader.observe(state, step)

    def decide(self, state: Any, key: PRNGKeyArray | None, length: int) -> tuple[Array, Any]:
        return self.sample_action(state, key, length, 1.0), state

    def warning(self, state: Any) -> str | None:
        return self.reader.warning(state)

    def sample_action(
        self, state: Any, key: PRNGKeyArray | None, length: int, exploration_scale: Array | float
    ) -> Array:
        """The action to be held, drawn with this share of its deviation; without a key the greedy one."""
        mean, log_std = split_outputs(self.reader.given(state))
        drawn = (
            mean if key is None else mean + exploration_scale * jnp.exp(log_std) * jax.random.normal(key, mean.shape)
        )
        return hold_action(self.reader.acting.statistics.to_action(drawn, None), length)


class Restrained(Policy[Any]):
    """`policy`, drawing nearer to its greedy actions: less exploration."""

    policy: Stochastic
    exploration_scale: Float[Array, ""]
    """share of the deviation"""

    def init_state(self, command: Any) -> Any:
        return self.policy.init_state(command)

    def observe(self, state: Any, step: Step) -> Any:
        return self.policy.observe(state, step)

    def decide(self, state: Any, key: PRNGKeyArray | None, length: int) -> tuple[Array, Any]:
        return self.policy.sample_action(state, key, length, self.exploration_scale), state


def policy(config: Config, learner: Learner) -> Stochastic:
    """The deployable part: the network, the data's statistics, and the multiplier."""
    return stochastic(config, learner.network, learner.statistics, learner.log_multiplier)


def new_policy(config: Config, spec: Spec, key: PRNGKeyArray) -> Stochastic:
    """`policy` of what `init` gives, without what only learns."""
    log_multiplier = jnp.log(jnp.asarray(config.multiplier, jnp.float32))
    return stochastic(config, _network(config, spec, key), DatasetStatistics.identity(spec), log_multiplier)


def stochastic(config: Config, network: Network, statistics: DatasetStatistics, log_multiplier: Array) -> Stochastic:
    """A network at work, on windows of `eval_context` steps."""
    return Stochastic(dt.reader(config, network, statistics, config.eval_context), log_multiplier)


def attention(config: Config, policy: Stochastic) -> Attention:
    """Of the network that its policy reads by."""
    return dt_attention.attention(config, policy.reader)


def batches(config: Config) -> BatchSpec:
    """Windows of K steps; for a cache half as many, twice as long."""
    return dt.batches(config)


def plan_length(config: Config) -> int:
    """Primitive steps between decisions while training."""
    return 1
