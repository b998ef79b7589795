"""Online Decision Transformer (Zheng, Zhang & Grover 2022, arXiv 2202.05607), fine-tuned by acting.

Its target is above the returns of the logs, its actions are sampled, and it imitates the episodes that result, which
replace the worst ones in the replay: returns-to-go in the replay are those that were earned. L and lambda are those of
`online_decision_transformer`. From poor logs imitation alone does not improve; with `td3` there is a policy gradient
beside it (Yan et al. 2024, arXiv 2410.24108):

    y_t  = r_t + m gamma min_i Q'_i(s_{t+1}, tanh mu'_{t+1})         m: 0 where the environment ended the episode, and
                                                                     s_{t+1} may be some steps later (`n_step`)
    L_Q  = MSE(Q_1(s_t, a_t), y_t) + MSE(Q_2(s_t, a_t), y_t)
    L   += td3 (-mean Q_1(s_t, tanh mu_t) / mean |Q_1|)              over the steps of windows
"""

from __future__ import annotations

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from legato.algorithms import whole_episodes
from legato.algorithms.decision_transformer import online_decision_transformer as odt
from legato.algorithms.decision_transformer.config import ODT as Base
from legato.algorithms.decision_transformer.config import OnlineDT as Config
from legato.algorithms.decision_transformer.decision_transformer import Network
from legato.algorithms.decision_transformer.online_decision_transformer import Restrained, Stochastic
from legato.algorithms.finetuning import Phase, check_n_step, target_above
from legato.data import episode_replay
from legato.data.dataset_statistics import DatasetStatistics
from legato.data.episode_replay import EpisodeReplay, WindowBatch
from legato.data.spec import Spec
from legato.data.trajectories import Trajectories
from legato.losses import deterministic
from legato.losses.means import masked_mean
from legato.losses.returns import n_step_return
from legato.losses.temporal_difference import twin_error
from legato.nn.ensembles import TwinCritic
from legato.nn.optimisation import descend, mean_gradient, optax, polyak, warmup_schedule

Metrics = dict[str, Float[Array, ""]]
replay = whole_episodes


class Learner(eqx.Module):
    """Everything that the fine-tuning carries. Critics and targets are there with `td3` only."""

    actor: Network
    average: Network
    """what is evaluated and kept: a moving average of the actor"""
    log_multiplier: Float[Array, ""]
    target_actor: Network | None
    critic: TwinCritic | None
    target_critic: TwinCritic | None
    statistics: DatasetStatistics
    optimisers: dict[str, optax.OptState]
    updates: Int[Array, ""]
    base: Base = eqx.field(static=True)


def check(config: Config, base: Base, spec: Spec, limit: int | None) -> None:
    """Every policy of `odt` can be fine-tuned. Raises `LegatoError` for an n-step return longer than an episode."""
    check_n_step(config.n_step, limit)


def longest_episode(base: Base) -> int:
    """Steps of the longest episode that is expected where the environment sets no limit."""
    return base.episode_length


def phase(config: Config, step: int) -> Phase:
    """What is done after so many primitive steps."""
    alone = config.td3 > 0 and step < config.critic_steps
    updates = config.critic_updates if alone else config.updates
    return Phase(updates if step >= config.start_steps else 0, not alone, config.exploration_scale)


def init(config: Config, base: Base, policy: Stochastic, key: PRNGKeyArray) -> Learner:
    """A learner that acts as `policy` does, with its multiplier."""
    acting = policy.reader.acting
    statistics, actor = acting.statistics, acting.network
    spec, critic = statistics.spec, None
    if config.td3:
        critic = TwinCritic(
            spec.observation_size, spec.action_size, [config.hidden] * config.layers, norm=config.norm, key=key
        )
    trained = {"actor": actor, "multiplier": policy.log_multiplier, **({"critic": critic} if critic else {})}
    optimisers = _optimisers(config, base)
    return Learner(
        actor=actor,
        average=jax.tree.map(jnp.copy, actor),
        log_multiplier=policy.log_multiplier,
        target_actor=jax.tree.map(jnp.copy, actor) if critic else None,
        critic=critic,
        target_critic=jax.tree.map(jnp.copy, critic) if critic else None,
        statistics=statistics,
        optimisers={name: optimisers[name].init(part) for name, part in trained.items()},
        updates=jnp.zeros((), jnp.int32),
        base=base,
    )


def reads_logs(config: Config) -> bool:
    """Does the replay begin with logged episodes, so that the logs are needed?"""
    return True


def initial_episodes(config: Config, data: Trajectories) -> Int[np.ndarray, " episodes"]:
    """Which logged episodes the replay begins with: the best, or as many of every return."""
    return whole_episodes.initial_episodes(config.episodes, data, every_return=config.offline_episodes == "all")


def continues(config: Config) -> bool:
    """Does the optimiser of pre-training go on?"""
    return config.continue_optimiser


def continued(learner: Learner, before: odt.Learner) -> Learner:
    """The learner with the moments and counts that pre-training ended with."""
    kept = {"actor": before.optimisers["network"], "multiplier": before.optimisers["multiplier"]}
    return replace(learner, optimisers={**learner.optimisers, **kept})


def _optimisers(config: Config, base: Base) -> dict[str, optax.GradientTransformation]:
    rate = warmup_schedule(config.learning_rate or base.learning_rate, config.warmup)
    critic = warmup_schedule(config.critic_learning_rate, config.warmup)
    decay = base.weight_decay if config.weight_decay == -1 else config.weight_decay
    return {
        "actor": odt.make_optimiser(base.optimiser, rate, decay, config.clip),
        "multiplier": optax.adam(base.multiplier_learning_rate),
        "critic": optax.chain(optax.clip_by_global_norm(config.clip), optax.adamw(critic, weight_decay=0.0)),
    }


# --- learning ---


def critic_loss(
    critic: TwinCritic, learner: Learner, config: Config, batch: WindowBatch
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """L_Q over the steps whose next one is in the window or that end the episode, and the mean Q_1."""
    assert learner.target_actor is not None and learner.target_critic is not None
    statistics, window = learner.statistics, batch.window
    s, a = statistics.normaliser(window.observations), statistics.normalise_actions(window.actions)
    mean, _ = odt.split_outputs(odt.outputs(learner.target_actor, statistics, window))
    unit, known = config.reward_scale or statistics.scale / 10, batch.has_next | batch.terminated
    v = jnp.minimum(*learner.target_critic(s, jnp.tanh(mean)))
    y = n_step_return(batch.rewards / unit, v, batch.has_next, batch.terminated, config.gamma, config.n_step)
    q = critic(s, a)
    return masked_mean(twin_error(q, jax.lax.stop_gradient(y)), known), masked_mean(q[0], known)


def policy_gradient(actor: Network, learner: Learner, batch: WindowBatch) -> Float[Array, ""]:
    """-mean Q_1 / mean |Q_1| of the greedy actions."""
    assert learner.critic is not None
    window = batch.window
    mean, _ = odt.split_outputs(odt.outputs(actor, learner.statistics, window))
    q_1, _ = learner.critic(learner.statistics.normaliser(window.observations), jnp.tanh(mean))
    return deterministic.normalised_actor_loss(q_1, window.mask)


def update(
    config: Config, learner: Learner, replay: EpisodeReplay, key: PRNGKeyArray, joint: bool
) -> tuple[Learner, Metrics]:
    """One gradient step of the critics, where there are any, and, where `joint`, of the transformer and log lambda."""
    k_draw, k_update = jax.random.split(key)
    base, statistics = learner.base, learner.statistics
    what = odt.batches(replace(base, batch_size=config.batch_size))
    batch = episode_replay.sample_windows(replay, k_draw, what.size, what.length)
    optimisers, states = _optimisers(config, base), dict(learner.optimisers)
    metrics: Metrics = {}
    critic, target_critic = learner.critic, learner.target_critic
    if critic is not None and target_critic is not None:
        (loss_q, q), g = jax.value_and_grad(critic_loss, has_aux=True)(critic, learner, config, batch)
        critic, states["critic"] = descend(optimisers["critic"], critic, g, states["critic"])
        target_critic = polyak(target_critic, critic, config.tau)
        learner = eqx.tree_at(lambda whole: whole.critic, learner, critic)
        metrics = {"critic_loss": loss_q, "value": q}
    actor, log_multiplier, target_actor = learner.actor, learner.log_multiplier, learner.target_actor
    average = learner.average
    nll = entropy = jnp.zeros(())
    if joint:
        multiplier = jnp.exp(log_multiplier)

        def of(network: Network, part: WindowBatch, key: PRNGKeyArray) -> tuple[Float[Array, ""], tuple[Array, Array]]:
            k_noise, k_drop = jax.random.split(key)
            noise = jax.random.normal(k_noise, part.window.actions.shape)
            loss, aux = odt.loss(network, statistics, part.window, multiplier, noise, k_drop, base.action_clip)
            return loss + (config.td3 * policy_gradient(network, learner, part) if config.td3 else 0), aux

        counts, tokens = batch.window.mask.sum(axis=-1), 3 * what.length
        (_, (nll, entropy)), g = mean_gradient(of, actor, batch, counts, k_update, tokens)
        actor, states["actor"] = descend(optimisers["actor"], actor, g, states["actor"])
        average = actor if config.average == 1 else polyak(average, actor, config.average)
        slack = multiplier * (entropy - odt.entropy_bound(base, statistics.spec))
        log_multiplier, states["multiplier"] = descend(
            optimisers["multiplier"], log_multiplier, slack, states["multiplier"]
        )
        if target_actor is not None:
            target_actor = polyak(target_actor, actor, config.tau)
    metrics |= {"nll": nll, "entropy": entropy, "multiplier": jnp.exp(log_multiplier)}
    return Learner(
        actor=actor,
        average=average,
        log_multiplier=log_multiplier,
        target_actor=target_actor,
        critic=critic,
        target_critic=target_critic,
        statistics=statistics,
        optimisers=states,
        updates=learner.updates + 1,
        base=base,
    ), metrics


# --- acting ---


def policy(learner: Learner, target: Float[Array, ""]) -> Stochastic:
    """The deployable part: a policy of `odt` whose default target return is `target`."""
    return _asking(learner, learner.average, target)


def _asking(learner: Learner, network: Network, target: Float[Array, ""]) -> Stochastic:
    statistics = eqx.tree_at(lambda statistics: statistics.target, learner.statistics, target)
    return odt.stochastic(learner.base, network, statistics, learner.log_multiplier)


def deployed(learner: Learner) -> Network:
    """The network that `policy` acts by."""
    return learner.average


def explorer(learner: Learner, target: Float[Array, ""], noise: Float[Array, ""]) -> Restrained:
    """What collects: it draws its actions, with a share of their deviation."""
    return Restrained(_asking(learner, learner.actor, target), noise)


def targets(
    config: Config,
    first: Float[np.ndarray, " seeds"],
    best: Float[np.ndarray, " seeds"],
    target_scale: Float[np.ndarray, " seeds"],
) -> tuple[np.ndarray, np.ndarray]:
    """The returns to ask for in evaluations and while collecting, from those at first and the best evaluations.

    `target_scale` begins at 1 and is halved by every regression.
    """
    asks = target_above(config.target_increment, first, best, target_scale) if config.target_increment else first
    return asks, asks + (config.collect_target_scale - 1) * np.abs(asks)


def on_new_best(config: Config, learner: Learner, better: Bool[Array, ""]) -> Learner:
    """The learner after an evaluation that was `better` than all before: as it was."""
    return learner


def roll_back(config: Config, learner: Learner, actor: Network) -> Learner:
    """The learner with an actor that it had before."""
    both = actor, jax.tree.map(jnp.copy, actor)
    learner = eqx.tree_at(lambda whole: (whole.actor, whole.average), learner, both)
    if learner.target_actor is None:
        return learner
    return eqx.tree_at(lambda whole: whole.target_actor, learner, jax.tree.map(jnp.copy, actor))
