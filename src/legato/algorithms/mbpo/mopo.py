"""MOPO (Yu et al. 2020, arXiv 2005.13239): MBPO from logs, with rewards that are less where the model is unsure.

    p_k(s' - s, r | s, a) = N(mu_k, diag sigma_k^2)       an ensemble, fitted to the data once, before the first update
    r~ = r - lambda u(s, a)                               of imagined steps; u: see `models.uncertainty`
    SAC on minibatches of which `real_share` is data and the rest the newest roll-outs: k steps of pi in p

With an u that bounds the model's error, returns of the penalised model bound those of the environment from below. Real
rewards are not penalised. Imagined episodes end where the environment's rule or a classifier says so; a time limit of
the data is no end. Steps whose next observation is not known, the last ones of episodes in sets without final
observations, are not learnt from by the model, and by the critics where the episode terminated there. With real data
alone (`real_share=1`) this is SAC from logs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from legato.algorithms import soft_actor_critic
from legato.algorithms.mbpo import imagination, known, planner
from legato.algorithms.mbpo.config import MOPO as Config
from legato.algorithms.mbpo.imagination import Rows
from legato.algorithms.mbpo.units import Units
from legato.algorithms.model_planner import ModelPlanner
from legato.algorithms.protocol import Counts, Parts
from legato.algorithms.soft_actor_critic import HeldAction, Losses
from legato.data import normaliser
from legato.data import trajectories as logs
from legato.data.replay import Transition
from legato.data.spec import Spec
from legato.data.trajectories import Trajectories
from legato.data.transitions import LoggedTransition, Transitions, transitions
from legato.data.windows import BatchSpec
from legato.envs import EnvironmentConfig
from legato.errors import LegatoError
from legato.losses import soft
from legato.losses.temporal_difference import td_target, twin_loss
from legato.models.environment_model import EnvironmentModel
from legato.models.uncertainty import Penalty, uncertainty, unit_of

REPORTED = ("model_error", "model_updates", "refits", "imagined_steps", "imagined_reward", "imagined_lost")
REPORTED += ("penalty", "uncertainty", "beyond_data")
MEASURED = 20_000
"""steps of the data, evenly spaced, from which the unit of uncertainty is taken at most"""


class Statistics(eqx.Module):
    """Of the data."""

    units: Units
    """in which SAC counts"""
    reward_deviation: Float[Array, ""]
    reward_low: Float[Array, ""]
    reward_high: Float[Array, ""]


class Learner(eqx.Module):
    """Everything that is carried while training."""

    base: imagination.Learner
    statistics: Statistics
    uncertainty_unit: Float[Array, ""]
    """u_95"""


# --- the data ---


def select_data(config: Config, data: Trajectories, limit: int | None = None) -> Trajectories:
    """The data as it is learnt from: all of it. Raises `LegatoError` where there are no rewards."""
    logs.rewards(data)
    return data


def for_data(config: Config, spec: Spec, data: Trajectories) -> Config:
    """The hyper-parameters with the termination and the reward that are known of the data's environment, or not.

    With `termination=auto` it is learnt where no rule is known, or the environment cannot be made here, and left out
    where no episode of the data terminates. Raises `LegatoError` for a rule or a reward that is asked for and not
    known, for terminations that are to be learnt and lack the observation after them, and for a pool that is too large.
    """
    imagination.check(config, spec)
    changes = known.resolve(config, _environment(data))
    if changes["termination"] == "learned" and data.terminations.any():
        if data.final_observations is None:
            raise LegatoError(
                f"{data.about.name} lacks the observations after terminations, from which these would be learnt: "
                "set `termination=never`, or name in the data an environment whose rule is known"
            )
    elif config.termination == "auto" and changes["termination"] == "learned":
        changes["termination"] = "never"
    return dataclasses.replace(config, **changes)


def _environment(data: Trajectories) -> EnvironmentConfig | None:
    """The data's, where it can be made."""
    if not data.about.environment:
        return None
    found = EnvironmentConfig(data.about.environment)
    try:
        known.known_functions(known.as_text(found))
    except LegatoError:
        return None
    return found


def prepare(
    config: Config, spec: Spec, data: Trajectories, folder: Path | None, fingerprint: str
) -> tuple[Statistics, Transitions]:
    """The statistics of the data, and its steps on the device. Nothing needs to be kept."""
    r = logs.rewards(data)
    deviation = float(np.std(r, dtype=np.float64))
    deviation = deviation if deviation > 1e-6 else 1.0
    if config.units == "data":
        units = Units(normaliser.of(data.observations), jnp.asarray(deviation, jnp.float32))
    else:
        units = Units(normaliser.none(spec.observation_size), jnp.ones(()))
    numbers = (jnp.asarray(value, jnp.float32) for value in (deviation, r.min(), r.max()))
    return Statistics(units, *numbers), transitions(data)


def model_rows(source: Transitions, spec: Spec) -> Rows:
    """The steps whose next observation is known, shuffled, with actions in units of their bounds.

    Shuffled, as every so many-th row is held out, which must not be the same step of every episode.
    """
    usable = np.asarray(source.usable)
    place = np.random.default_rng(0).permutation(usable[np.asarray(source.next_row)[usable] != usable])
    s, a, r, s_next, continues = _gathered(source, place, spec)
    return Rows(s, a, r, s_next, continues, len(place), len(place) - 1)


@partial(jax.jit, static_argnums=2)
def _gathered(source: Transitions, place: Int[Array, " rows"], spec: Spec) -> tuple[Array, ...]:
    rows = source.at(place)
    return rows.observation, spec.normalise(rows.action), rows.reward, rows.next_observation, rows.continues


# --- the learner ---


def init(config: Config, spec: Spec, key: PRNGKeyArray, statistics: Statistics | None = None) -> Learner:
    """A learner before its first update. `statistics` are those of the data."""
    base, one = imagination.init(config, spec, key, REPORTED), jnp.ones(())
    statistics = Statistics(base.units, one, -one, one) if statistics is None else statistics
    return Learner(eqx.tree_at(lambda whole: whole.units, base, statistics.units), statistics, one)


def policy(config: Config, learner: Learner) -> HeldAction:
    """The deployable part: the actor alone."""
    return imagination.policy(learner.base)


def new_policy(config: Config, spec: Spec, key: PRNGKeyArray) -> HeldAction:
    """`policy` of what `init` gives, without what only learns."""
    return imagination.new_policy(config, spec, key)


def compose(
    config: Config, policy: HeldAction, options: Mapping[str, Any], parts: Parts
) -> tuple[Config, ModelPlanner]:
    """The actor with a planner over its run's model and critics (see `planner.compose`)."""
    return planner.compose(config, policy, options, parts._replace(learner=lambda: parts.learner().base))


def batches(config: Config) -> BatchSpec:
    """The real steps of a minibatch."""
    return BatchSpec(max(1, imagination.real_rows(config)), 1)


def plan_length(config: Config) -> int:
    """Primitive steps between decisions while training."""
    return 1


# --- the update ---


def penalty_of(config: Config, learner: Learner) -> Penalty:
    """What an imagined reward loses."""
    return Penalty(
        unit=learner.uncertainty_unit,
        reward_deviation=learner.statistics.reward_deviation,
        weight=config.penalty,
        most=config.penalty_most,
        kind=config.penalty_kind,
        units=config.penalty_units,
    )


def return_bounds(config: Config, learner: Learner) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The least and the largest discounted return of rewards within those of the data, less the largest penalty.

    In SAC's units. 0, or the last reward alone, counts as well, as an episode may terminate. Infinite for gamma = 1.
    """
    low = learner.statistics.reward_low - penalty_of(config, learner).largest
    high = learner.statistics.reward_high
    steps = 1 / (1 - config.gamma) if config.gamma < 1 else jnp.inf
    least = jnp.where(low < 0, low * steps, low)
    most = jnp.where(high > 0, high * steps, high)
    return least / learner.base.units.reward, most / learner.base.units.reward


def clipped_critic_loss(
    critic: Any,
    learner: soft_actor_critic.Learner,
    options: soft_actor_critic.Options,
    batch: Transition,
    noise: Float[Array, "batch act"],
    *,
    bounds: tuple[Float[Array, ""], Float[Array, ""]],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """SAC's L_Q with y within the bounds, and the mean Q_1. `noise` is standard normal and picks a'."""
    a_next, log_pi = learner.actor(batch.next_observation).sample(noise)
    v_next = soft.state_value(learner.target_critic(batch.next_observation, a_next), log_pi, learner.alpha)
    y = jnp.clip(td_target(batch.reward, batch.continues, options.gamma, v_next), *bounds)
    q = critic(batch.observation, batch.action)
    return twin_loss(q, y), q[0].mean()


def update(
    config: Config, learner: Learner, batch: LoggedTransition, key: PRNGKeyArray
) -> tuple[Learner, dict[str, Float[Array, ""]]]:
    """One update of SAC on the data's steps of the batch and imagined ones."""
    real = Transition(
        observation=batch.observation,
        action=learner.base.sac.spec.normalise(batch.action),
        previous_action=jnp.zeros_like(batch.action),  # nobody reads it
        reward=batch.reward,
        next_observation=batch.next_observation,
        continues=batch.continues,
    )
    losses = soft_actor_critic.CONTINUOUS
    if config.clip_targets:
        losses = Losses(partial(clipped_critic_loss, bounds=return_bounds(config, learner)), losses.actor)
    base, metrics = imagination.update(config, learner.base, real, key, losses=losses)
    return Learner(base, learner.statistics, learner.uncertainty_unit), metrics


# --- between turns ---


def refresh_due(config: Config, learner: Learner, last: Counts | None, now: Counts) -> bool:
    """Is the model to be fitted, or unrolled after so many updates?"""
    if config.real_share == 1:
        return False
    return last is None or now.updates // config.imagine_every > last.updates // config.imagine_every


def refresh(
    config: Config,
    learner: Learner,
    data: Transitions,
    keys: PRNGKeyArray | Array,
    show: Callable[[int, int, str], None],
    last: Counts | None,
    now: Counts,
) -> tuple[Learner, Transitions]:
    """All seeds' learners with their models fitted, the first time, and new imagined transitions."""
    rows = model_rows(data, learner.base.sac.spec)
    found = []
    for i, key in enumerate(keys):
        k_fit, k_imagine = jax.random.split(key)
        of_seed = imagination.select_seed(learner, i)
        if last is None:
            of_seed = fit_model(config, of_seed, rows, k_fit, show)
        penalty = penalty_of(config, of_seed)
        base = imagination.imagine(config, of_seed.base, rows, now.steps, k_imagine, penalty)
        found.append(Learner(base, of_seed.statistics, of_seed.uncertainty_unit))
    return imagination.stack_seeds(found), data


def fit_model(
    config: Config, learner: Learner, rows: Rows, key: PRNGKeyArray, show: Callable[[int, int, str], None]
) -> Learner:
    """One seed's learner with its model fitted to these rows, and the unit of uncertainty measured on them."""
    base = imagination.fit(config, learner.base, rows, key, show)
    base = eqx.tree_at(lambda whole: whole.units, base, learner.statistics.units)  # of all the data
    place = np.linspace(0, rows.filled - 1, min(rows.filled, MEASURED)).astype(np.int32)
    unit = _uncertainty_unit(config, base.model, rows.observation, rows.action, place)
    return Learner(base, learner.statistics, unit)


@partial(jax.jit, static_argnums=0)
def _uncertainty_unit(config: Config, model: EnvironmentModel, s: Array, a: Array, place: Array) -> Float[Array, ""]:
    x = jnp.concatenate([s[place], a[place]], axis=-1)
    return unit_of(uncertainty(model.gaussian, x, config.penalty_kind, config.penalty_units))
