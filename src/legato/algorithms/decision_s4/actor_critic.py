"""Decision S4 fine-tuned by acting (Bar-David et al. 2023, arXiv 2306.05167): a deterministic actor-critic over states.

    a'   = X'(s', a, R', h')                       one step of the recurrence, from the stored state h'
    y    = r + m gamma min_i C'_i(s', a', R')      m: 0 where the environment ended the episode
           - p (1 - m) max(R', 0)                  p, the `termination_penalty`, on the return-to-go that is left there;
                                                   s' may be `n_step` steps later
    L_C  = MSE(C_1(s, a, R), y) + MSE(C_2(s, a, R), y)
    L_X  = -mean min_i C_i(s, X(s, a_prev, R, h), R)        / mean |C| + w MSE(X, the best so far), with a
                                                   `regularisation_weight` w

h is a number, not a function of the weights: the gradient reaches through this one step only. A, B and the step sizes
stay as they are by default, as a stored state is otherwise soon another than the actor would be in. The critics learn
first, alone: an actor updated from untrained critics degrades at once. Two critics where the paper has
one: the smaller of the two is not the one that happens to be too high (Fujimoto et al. 2018, arXiv 1802.09477).
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from legato.algorithms.decision_s4 import stored_states
from legato.algorithms.decision_s4.config import DS4 as Base
from legato.algorithms.decision_s4.config import DS4AC as Config
from legato.algorithms.decision_s4.decision_s4 import Network, Recurrent, recurrent
from legato.algorithms.finetuning import Phase, check_n_step, target_above
from legato.data import recurrent_replay
from legato.data import trajectories as logs
from legato.data.dataset_statistics import DatasetStatistics
from legato.data.recurrent_replay import RecurrentReplay, StateTransition
from legato.data.spec import Spec
from legato.data.trajectories import Trajectories
from legato.errors import LegatoError
from legato.losses import deterministic
from legato.losses.imitation import squared_error
from legato.losses.means import masked_mean
from legato.losses.returns import n_step_reward
from legato.losses.temporal_difference import td_target, twin_error
from legato.nn.ensembles import TwinCritic
from legato.nn.optimisation import descend, optax, polyak, warmup_schedule
from legato.nn.ssm import groups
from legato.policy import Noisy

Metrics = dict[str, Float[Array, ""]]
replay = stored_states


class Learner(eqx.Module):
    """Everything that the fine-tuning carries."""

    actor: Network
    target_actor: Network
    critic: TwinCritic
    target_critic: TwinCritic
    reference_actor: Network
    average: Network
    """what is evaluated and kept: a moving average of the actor"""
    regularisation_scale: Float[Array, ""]
    """1, halved by every rollback: the regularisation is divided by it"""
    statistics: DatasetStatistics
    optimisers: dict[str, optax.OptState]
    updates: Int[Array, ""]
    base: Base = eqx.field(static=True)


def check(config: Config, base: Base, spec: Spec, limit: int | None) -> None:
    """Raises `LegatoError` for a policy that cannot be fine-tuned. `limit`: the steps of an episode, where known."""
    check_n_step(config.n_step, limit)
    if spec.choices is not None:
        raise LegatoError("an actor-critic of deterministic actions needs actions that are numbers, not choices")
    if not base.history:
        raise LegatoError("a policy without history has no states to learn from: train one with history")
    if config.relabel and base.delay_rewards:
        raise LegatoError("a delayed return is not relabelled: leave relabel out")
    if config.relabel and config.termination_penalty:
        raise LegatoError("relabelled episodes leave no return-to-go to lose: give termination_penalty 0 with relabel")


def longest_episode(base: Base) -> int:
    """Steps of the longest episode that is expected where the environment sets no limit."""
    return 1000


def phase(config: Config, step: int) -> Phase:
    """What is done after so many primitive steps."""
    first, then, last = config.noise
    if step < config.critic_steps:
        return Phase(config.critic_updates if step >= config.start_steps else 0, False, first, config.target_variation)
    share = min(1.0, (step - config.critic_steps) / max(config.noise_over, 1))
    return Phase(
        config.updates if step >= config.start_steps else 0, True, then + share * (last - then), config.target_variation
    )


def init(config: Config, base: Base, policy: Recurrent, key: PRNGKeyArray) -> Learner:
    """A learner that acts as `policy` does."""
    spec, actor = policy.statistics.spec, policy.network
    reads = spec.observation_size + config.critic_reads_return
    critic = TwinCritic(reads, spec.action_size, [config.hidden] * config.layers, norm=config.norm, key=key)
    optimisers = _optimisers(config)
    trained = {"actor": actor, "critic": critic}
    return Learner(
        actor=actor,
        target_actor=jax.tree.map(jnp.copy, actor),
        critic=critic,
        target_critic=jax.tree.map(jnp.copy, critic),
        reference_actor=jax.tree.map(jnp.copy, actor),
        average=jax.tree.map(jnp.copy, actor),
        regularisation_scale=jnp.ones(()),
        statistics=policy.statistics,
        optimisers={name: optimisers[name].init(part) for name, part in trained.items()},
        updates=jnp.zeros((), jnp.int32),
        base=base,
    )


def _optimisers(config: Config) -> dict[str, optax.GradientTransformation]:
    rate = warmup_schedule(config.learning_rate, config.warmup)
    moved = optax.adam(rate)
    frozen = optax.set_to_zero() if config.freeze_core else moved
    clip = optax.clip_by_global_norm(config.clip)
    critic = optax.adamw(warmup_schedule(config.critic_learning_rate, config.warmup), weight_decay=config.weight_decay)
    return {
        "actor": optax.chain(clip, optax.multi_transform({"core": frozen, "readout": moved, "rest": moved}, groups)),
        "critic": optax.chain(clip, critic),
    }


# --- the logs ---


def reads_logs(config: Config) -> bool:
    """Does the replay begin with logged episodes, so that the logs are needed?"""
    return config.offline_steps > 0


def initial_episodes(config: Config, data: Trajectories) -> Int[np.ndarray, " episodes"]:
    """Which logged episodes the replay begins with, in the order in which they go in: the best last.

    Half of their steps are of the best; the others of all returns, evenly: the best alone would never show the critics
    what an episode looks like that goes wrong.
    """
    order = np.argsort(-logs.returns(data), kind="stable")
    best = order[np.cumsum(data.lengths[order]) <= config.offline_steps / 2]
    others, left = order[len(best) :], config.offline_steps - data.lengths[best].sum()
    share = min(1.0, left / max(data.lengths[others].sum(), 1))
    spread = others[np.diff(np.ceil(np.arange(len(others) + 1) * share)) > 0]
    return np.concatenate([best, spread[np.cumsum(data.lengths[spread]) <= left]])[::-1]


# --- learning ---


def replay_actions(network: Network, learner: Learner, transition: StateTransition) -> Float[Array, "batch act"]:
    """X(s, a_prev, R, h): one step of the recurrence from the stored states; actions in units of their bounds."""
    _, unravel = ravel_pytree(network.start())
    states, statistics = jax.vmap(unravel)(jax.lax.stop_gradient(transition.state)), learner.statistics
    given = statistics.normaliser(transition.observation), transition.previous, statistics.scale_return(transition.ret)
    out = network.respond(states, *given)
    return statistics.clip_actions(statistics.squash(out) if learner.base.squash else out)


def q_values(
    critic: TwinCritic, config: Config, statistics: DatasetStatistics, transition: StateTransition, action: Array
) -> tuple[Array, Array]:
    """C_1 and C_2 of (s, a, R)."""
    read = statistics.normaliser(transition.observation)
    if config.critic_reads_return:
        read = jnp.concatenate([read, statistics.scale_return(transition.ret)[..., None]], axis=-1)
    return critic(read, action)


def critic_loss(
    critic: TwinCritic,
    learner: Learner,
    config: Config,
    now: StateTransition,
    after: StateTransition,
    discount: Float[Array, " batch"],
    noise: Float[Array, "batch act"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """L_C and the mean C_1; `discount` lies between `now` and `after`, `noise` is on the actions after."""
    statistics = learner.statistics
    unit = config.reward_scale or statistics.scale / 10
    a_next = learner.statistics.clip_actions(replay_actions(learner.target_actor, learner, after) + noise)
    c_next = jnp.minimum(*q_values(learner.target_critic, config, statistics, after, a_next))
    lost = config.termination_penalty * (1 - now.continues) * jnp.maximum(after.ret, 0)
    y = td_target((now.reward - lost) / unit, now.continues, discount, c_next)
    c, steps = q_values(critic, config, statistics, now, now.action), now.valid > 0
    return masked_mean(twin_error(c, y), steps), masked_mean(c[0], steps)


def actor_loss(
    actor: Network, learner: Learner, config: Config, now: StateTransition
) -> tuple[Float[Array, ""], Array]:
    """L_X, and the mean squared distance to the reference policy's actions."""
    if config.freeze_core:  # here, so that it costs nothing and does not count when gradients are clipped
        actor = jax.tree.map(lambda x, group: jax.lax.stop_gradient(x) if group == "core" else x, actor, groups(actor))
    action = replay_actions(actor, learner, now)
    c = jnp.minimum(*q_values(learner.critic, config, learner.statistics, now, action))
    steps = now.valid > 0  # among the rows
    apart = masked_mean(
        squared_error(action, jax.lax.stop_gradient(replay_actions(learner.reference_actor, learner, now))), steps
    )
    if not config.regularisation_weight:
        return -masked_mean(c, steps), apart
    return deterministic.normalised_actor_loss(
        c, steps
    ) + config.regularisation_weight / learner.regularisation_scale * apart, apart


def update(
    config: Config, learner: Learner, replay: RecurrentReplay, key: PRNGKeyArray, joint: bool
) -> tuple[Learner, Metrics]:
    """One gradient step of the critics or, where `joint`, as many as are to come before one of the actor, and that."""

    def step(learner: Learner, key: PRNGKeyArray) -> tuple[Learner, Metrics]:
        return critic_step(config, learner, replay, key)

    k_critic, k_actor = jax.random.split(key)
    if not joint:
        learner, metrics = step(learner, k_critic)
        return learner, {**metrics, "moved": jnp.zeros(())}
    learner, metrics = jax.lax.scan(step, learner, jax.random.split(k_critic, config.critics_per_actor))
    learner, moved = actor_step(config, learner, replay, k_actor)
    return learner, {**jax.tree.map(jnp.mean, metrics), "moved": moved}


def critic_step(
    config: Config, learner: Learner, replay: RecurrentReplay, key: PRNGKeyArray
) -> tuple[Learner, Metrics]:
    """One gradient step of the critics, and one of their targets towards them."""
    k_sample, k_noise = jax.random.split(key)
    now, after, ahead = recurrent_replay.sample(replay, k_sample, config.batch_size, config.n_step)
    reward, n = n_step_reward(ahead.reward, ahead.valid, config.gamma)
    now = eqx.tree_at(lambda m: (m.reward, m.continues), now, (reward, ahead.continues.prod(axis=0)))
    noise = jax.random.normal(k_noise, now.action.shape)
    noise = deterministic.smoothing_noise(noise, config.smoothing, 2.5 * config.smoothing)
    (loss, c), g = jax.value_and_grad(critic_loss, has_aux=True)(
        learner.critic, learner, config, now, after, config.gamma**n, noise
    )
    critic, state = descend(_optimisers(config)["critic"], learner.critic, g, learner.optimisers["critic"])
    updates = learner.updates + 1
    target = polyak(learner.target_critic, critic, _rate(config, updates))
    optimisers = {**learner.optimisers, "critic": state}
    learner = eqx.tree_at(
        lambda whole: (whole.critic, whole.target_critic, whole.optimisers, whole.updates),
        learner,
        (critic, target, optimisers, updates),
    )
    return learner, {"critic_loss": loss, "value": c}


def actor_step(config: Config, learner: Learner, replay: RecurrentReplay, key: PRNGKeyArray) -> tuple[Learner, Array]:
    """One gradient step of the actor, and one of its target and of what is deployed; the distance to the reference
    policy.
    """
    now, *_ = recurrent_replay.sample(replay, key, config.batch_size)
    (_, apart), g = jax.value_and_grad(actor_loss, has_aux=True)(learner.actor, learner, config, now)
    actor, state = descend(_optimisers(config)["actor"], learner.actor, g, learner.optimisers["actor"])
    optimisers = {**learner.optimisers, "actor": state}
    target = polyak(learner.target_actor, actor, _rate(config, learner.updates, config.critics_per_actor))
    average = polyak(learner.average, actor, config.average)
    learner = eqx.tree_at(
        lambda whole: (whole.actor, whole.target_actor, whole.average, whole.optimisers),
        learner,
        (actor, target, average, optimisers),
    )
    return learner, apart


def _rate(config: Config, updates: Int[Array, ""], latest: int = 1) -> Float[Array, ""] | float:
    """The share of the way that targets go with the latest updates."""
    if config.tau:
        return config.tau
    return jnp.where(updates // config.target_every > (updates - latest) // config.target_every, 1.0, 0.0)


# --- acting ---


def policy(learner: Learner, target: Float[Array, ""]) -> Recurrent:
    """The deployable part: a policy of `decision_s4` whose default target return is `target`."""
    statistics = eqx.tree_at(lambda statistics: statistics.target, learner.statistics, target)
    return recurrent(learner.base, learner.average, statistics)


def deployed(learner: Learner) -> Network:
    """The network that `policy` acts by."""
    return learner.average


def explorer(learner: Learner, target: Float[Array, ""], noise: Float[Array, ""]) -> Noisy[Any]:
    """What collects."""
    statistics = eqx.tree_at(lambda statistics: statistics.target, learner.statistics, target)
    return Noisy(recurrent(learner.base, learner.actor, statistics), noise, learner.statistics.spec)


def on_new_best(config: Config, learner: Learner, better: Bool[Array, ""]) -> Learner:
    """The learner after an evaluation that was `better` than all before: a new reference policy, and half the
    regularisation.
    """
    scale = jnp.where(better, jnp.minimum(1.0, 2 * learner.regularisation_scale), learner.regularisation_scale)
    learner = eqx.tree_at(lambda whole: whole.regularisation_scale, learner, scale)
    if config.regularise_towards == "start":
        return learner
    moved = jax.tree.map(lambda new, old: jnp.where(better, new, old), learner.average, learner.reference_actor)
    return eqx.tree_at(lambda whole: whole.reference_actor, learner, moved)


def roll_back(config: Config, learner: Learner, actor: Network) -> Learner:
    """The learner with an actor that it had before, its optimiser at rest, and twice the regularisation."""
    copies = (actor, *(jax.tree.map(jnp.copy, actor) for _ in range(2)))
    rest = {**learner.optimisers, "actor": jax.tree.map(jnp.zeros_like, learner.optimisers["actor"])}
    return eqx.tree_at(
        lambda whole: (whole.actor, whole.target_actor, whole.average, whole.optimisers, whole.regularisation_scale),
        learner,
        (*copies, rest, jnp.maximum(learner.regularisation_scale / 2, config.min_regularisation_scale)),
    )


def targets(
    config: Config,
    first: Float[np.ndarray, " seeds"],
    best: Float[np.ndarray, " seeds"],
    target_scale: Float[np.ndarray, " seeds"],
) -> tuple[np.ndarray, np.ndarray]:
    """The returns to ask for in evaluations and while collecting, from those at first and the best evaluations.

    `target_scale` begins at 1 and is halved by every regression.
    """
    ask = target_above(config.target_increment, first, best, target_scale)
    return ask, ask
