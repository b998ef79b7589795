"""Decision S4 fine-tuned by imitation: whole episodes of its own, as convolutions, the better ones more.

    G   : what an episode earned;  pivot: the highest that mean G + 0.4 std G of the replay has been
    w   = clip(exp(sharpness (G - pivot) / |pivot|), 0.01, 10)
    L   = sum_i w_i MSE(a^_i, a_i) / sum_i w_i         over the steps of episodes, drawn by the square of their lengths

The second of two fine-tunings in the code that descends from Bar-David et al. 2023 (arXiv 2306.05167); the first is
`actor_critic`. Returns-to-go are those that were earned. No critic is used.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from legato.algorithms import whole_episodes
from legato.algorithms.decision_s4.config import DS4 as Base
from legato.algorithms.decision_s4.config import DS4RW as Config
from legato.algorithms.decision_s4.decision_s4 import Network, Recurrent, loss, recurrent
from legato.algorithms.finetuning import Phase, target_above
from legato.data import episode_replay
from legato.data.dataset_statistics import DatasetStatistics
from legato.data.episode_replay import EpisodeReplay
from legato.data.spec import Spec
from legato.data.trajectories import Trajectories
from legato.errors import LegatoError
from legato.nn.optimisation import descend, optax, warmup_schedule
from legato.nn.ssm import groups
from legato.policy import Noisy

Metrics = dict[str, Float[Array, ""]]
replay = whole_episodes


class Learner(eqx.Module):
    """Everything that the fine-tuning carries."""

    actor: Network
    statistics: DatasetStatistics
    pivot: Float[Array, ""]
    optimiser: optax.OptState
    updates: Int[Array, ""]
    base: Base = eqx.field(static=True)


def check(config: Config, base: Base, spec: Spec, limit: int | None) -> None:
    """Raises `LegatoError` for a policy that cannot be fine-tuned."""
    if spec.choices is not None:
        raise LegatoError("noise is explored with, which needs actions that are numbers, not choices")
    if base.delay_rewards or base.paper_alignment:
        raise LegatoError("delayed returns and the paper's alignment are not fine-tuned: train a policy without")


def longest_episode(base: Base) -> int:
    """Steps of the longest episode that is expected where the environment sets no limit."""
    return 1000


def phase(config: Config, step: int) -> Phase:
    """What is done after so many primitive steps."""
    return Phase(config.updates if step >= config.start_steps else 0, True, config.noise, config.target_variation)


def init(config: Config, base: Base, policy: Recurrent, key: PRNGKeyArray) -> Learner:
    """A learner that acts as `policy` does."""
    optimiser = _optimiser(config, base)
    state: Any = optimiser.init(policy.network)  # type: ignore[arg-type]
    return Learner(
        policy.network, policy.statistics, jnp.full((), -jnp.inf, float), state, jnp.zeros((), jnp.int32), base
    )


def _optimiser(config: Config, base: Base) -> optax.GradientTransformation:
    rate = warmup_schedule(config.learning_rate, config.warmup)
    core = optax.set_to_zero() if base.freeze_core else optax.adam(rate)
    rest = optax.adamw(rate, weight_decay=config.weight_decay)
    parts = optax.multi_transform({"core": core, "readout": optax.adam(rate), "rest": rest}, groups)
    return optax.chain(optax.clip_by_global_norm(config.clip), parts)


# --- the logs ---


def reads_logs(config: Config) -> bool:
    """Does the replay begin with logged episodes, so that the logs are needed?"""
    return True


def initial_episodes(config: Config, data: Trajectories) -> Int[np.ndarray, " episodes"]:
    """Which logged episodes the replay begins with: the best."""
    return whole_episodes.initial_episodes(config.episodes, data)


# --- learning ---


def weights(
    config: Config, pivot: Float[Array, ""], replay: EpisodeReplay
) -> tuple[Float[Array, " slots"], Float[Array, ""]]:
    """w of every slot, and the pivot, which never falls."""
    earned, there = episode_replay.returns(replay), replay.lengths > 0
    count = jnp.maximum(there.sum(), 1)
    mean = jnp.sum(jnp.where(there, earned, 0)) / count
    spread = jnp.sqrt(jnp.sum(jnp.where(there, (earned - mean) ** 2, 0)) / count)
    pivot = jnp.maximum(pivot, mean + config.pivot_deviations * spread)
    power = config.sharpness * (earned - pivot) / jnp.maximum(jnp.abs(pivot), 1e-6)
    return jnp.clip(jnp.exp(jnp.minimum(power, 5.0)), 0.01, 10.0), pivot


def update(
    config: Config, learner: Learner, replay: EpisodeReplay, key: PRNGKeyArray, joint: bool
) -> tuple[Learner, Metrics]:
    """One gradient step."""
    k_draw, k_drop = jax.random.split(key)
    base = learner.base
    weight, pivot = weights(config, learner.pivot, replay)
    batch, slot = episode_replay.sample_episodes(replay, k_draw, config.batch_size, power=2.0)
    value, gradient = jax.value_and_grad(loss)(learner.actor, learner.statistics, base, batch, k_drop, weight[slot])
    actor, state = descend(_optimiser(config, base), learner.actor, gradient, learner.optimiser)
    metrics = {"loss": value, "weight": weight[slot].mean(), "pivot": pivot}
    return Learner(actor, learner.statistics, pivot, state, learner.updates + 1, base), metrics


# --- acting ---


def policy(learner: Learner, target: Float[Array, ""]) -> Recurrent:
    """The deployable part: a policy of `decision_s4` whose default target return is `target`."""
    statistics = eqx.tree_at(lambda statistics: statistics.target, learner.statistics, target)
    return recurrent(learner.base, learner.actor, statistics)


def deployed(learner: Learner) -> Network:
    """The network that `policy` acts by."""
    return learner.actor


def explorer(learner: Learner, target: Float[Array, ""], noise: Float[Array, ""]) -> Noisy[Any]:
    """What collects."""
    return Noisy(policy(learner, target), noise, learner.statistics.spec)


def on_new_best(config: Config, learner: Learner, better: Bool[Array, ""]) -> Learner:
    """The learner after an evaluation that was `better` than all before: as it was."""
    return learner


def roll_back(config: Config, learner: Learner, actor: Network) -> Learner:
    """The learner with an actor that it had before."""
    return eqx.tree_at(lambda whole: whole.actor, learner, actor)


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
