"""What MBPO, CMLO and MOPO share: a learner of SAC beside a model, and the pool of what is imagined in it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from legato.algorithms import soft_actor_critic
from legato.algorithms.mbpo.config import FIELD_MODELS, ModelBased
from legato.algorithms.mbpo.known import OfUnitActions, known_functions
from legato.algorithms.mbpo.units import NormalisedActor, Units, change_units, measure_units
from legato.data import normaliser, ring
from legato.data.device_memory import refuse_beyond
from legato.data.replay import Transition
from legato.data.spec import Spec
from legato.errors import LegatoError
from legato.models import ensemble, ensemble_fit, environment_model, recurrent_ensemble, recurrent_fit
from legato.models.dynamics import TerminationModel
from legato.models.ensemble import Ensemble
from legato.models.ensemble_fit import Fit, FitOptions
from legato.models.environment_model import EnvironmentModel, Imagined
from legato.models.recurrent_ensemble import RecurrentEnsemble
from legato.models.recurrent_fit import TimeSeries
from legato.nn.circulant import Forcing
from legato.nn.ensembles import TwinCritic

CLASSIFIER_UPDATES = 500
"""of the classifier of terminations, in each fit"""
Penalty = Callable[[EnvironmentModel, Array, Array], dict[str, Float[Array, " rows"]]]
"""of the model, s and a: the `penalty` that imagined rewards lose, and what else is reported of each row; a pytree"""


class Pool(eqx.Module):
    """The newest imagined transitions, packed `[s | a | r | s' | continues]`; actions are in units of their bounds."""

    rows: Float[Array, "capacity width"]
    added: Int[Array, ""]
    """how many were added, less whole rounds of a ring that has gone round: in long runs they are more than an int32"""
    drawn_from: Int[Array, ""]
    """the newest so many are drawn from"""

    def draw(self, key: PRNGKeyArray, size: int, spec: Spec) -> Transition:
        """So many of them, drawn uniformly with replacement."""
        newest = jax.random.randint(key, (size,), 0, jnp.maximum(jnp.minimum(self.added, self.drawn_from), 1))
        return unpack(self.rows[(self.added - 1 - newest) % len(self.rows)], spec)


class Rows(NamedTuple):
    """Real transitions, of which the first `filled` are there. Actions are in units of their bounds."""

    observation: Float[Array, "capacity obs"]
    action: Float[Array, "capacity act"]
    reward: Float[Array, " capacity"]
    next_observation: Float[Array, "capacity obs"]
    continues: Float[Array, " capacity"]
    filled: int
    newest: int
    """the place of the newest row"""
    environments: int = 1
    """that add their rows in turn"""


class Learner(eqx.Module):
    """Everything that is carried while training."""

    sac: soft_actor_critic.Learner
    model: EnvironmentModel
    pool: Pool
    units: Units
    report: dict[str, Float[Array, ""]]
    """of the last fit and of what was imagined, for the metrics"""
    trigger: Any = None
    """of `update=event`, as arrays"""


# --- beginnings ---


def init(config: ModelBased, spec: Spec, key: PRNGKeyArray, reported: tuple[str, ...]) -> Learner:
    """A learner before its first update."""
    k_actor, k_critic, k_model, k_termination = jax.random.split(key, 4)
    o, a = spec.observation_size, spec.action_size
    sizes = (config.hidden, config.hidden)
    found = known_functions(config.known_from)
    networks = _networks(config, o, a, found.forcing, k_model)
    learnt = config.termination == "learned"
    model = EnvironmentModel(
        ensemble=networks,
        elites=jnp.arange(config.elites, dtype=jnp.int32),
        termination=TerminationModel(o, a, sizes, key=k_termination) if learnt else None,
        reward=OfUnitActions(found.reward, spec) if config.reward == "known" and found.reward else None,
        rule=OfUnitActions(found.rule, spec) if config.termination == "rule" and found.rule else None,
    )
    actor = soft_actor_critic.Actor(spec.with_unit_bounds(), config.hidden, key=k_actor)
    critic = TwinCritic(o, a, sizes, key=k_critic)
    nothing = jnp.zeros((), jnp.int32)
    return Learner(
        sac=soft_actor_critic.init(actor, critic, spec, config.learning_rate),
        model=model,
        pool=Pool(jnp.zeros((pool_rows(config), pool_width(spec))), nothing, nothing),
        units=Units(normaliser.none(o), jnp.ones(())),
        report={name: jnp.zeros(()) for name in reported},
    )


def _networks(
    config: ModelBased, o: int, a: int, forcing: Forcing | None, key: PRNGKeyArray
) -> Ensemble | RecurrentEnsemble:
    if config.model not in FIELD_MODELS:
        inputs, outputs = normaliser.none(o + a), normaliser.none(o + (config.reward == "learned"))
        return ensemble.init(inputs, outputs, config.model_hidden, config.members, key=key)
    if forcing is None:
        raise LegatoError(f"`model={config.model}` needs a `known_from`, an environment that has a `grid_forcing`")
    if config.model == "convlstm":
        return recurrent_ensemble.init(o, a, forcing, config.members, norm=config.model_norm, key=key)
    return ensemble.init_field(o, a, forcing, config.model_channels, config.members, key=key)


def pool_rows(config: ModelBased) -> int:
    """Imagined transitions that are kept at most."""
    return 1 if config.real_share == 1 else config.rollouts * max(config.rollout_length) * config.retain


def pool_width(spec: Spec) -> int:
    """Numbers of each."""
    return 2 * spec.observation_size + spec.action_size + 2


def check(config: ModelBased, spec: Spec) -> None:
    """Raises `LegatoError` for what a Gaussian model cannot learn, and for a pool larger than the memory."""
    if spec.images or spec.choices is not None:
        what = "images" if spec.images else "choices"
        raise LegatoError(f"the model knows vectors and continuous actions only, no {what}")
    rows = pool_rows(config)
    what = f"a pool of {rows} imagined transitions of {4 * pool_width(spec)} bytes"
    # While it is filled, what was imagined lies beside it.
    refuse_beyond(2 * rows * 4 * pool_width(spec), what, "lower `rollouts`, `rollout_length` or `retain`")


# --- the model ---


@partial(jax.jit, static_argnums=0)
def _sides(config: ModelBased, rows: Any, key: PRNGKeyArray) -> tuple[Array, Array]:
    """What the ensemble reads and what it learns."""
    s, a, r, s_next = rows
    if config.shuffle_actions:
        a = jax.random.permutation(key, a)
    return jnp.concatenate([s, a], axis=-1), environment_model.targets(s, r, s_next, rewards=config.reward == "learned")


def fit_options(config: ModelBased) -> FitOptions:
    """How the ensemble is fitted."""
    return FitOptions(
        batch_size=config.model_batch_size,
        learning_rate=config.model_learning_rate,
        weight_decay=config.model_weight_decay,
        held_out=config.held_out,
        held_out_most=config.held_out_most,
        patience=config.patience,
        epoch=config.fit_epoch,
        most=config.fit_most,
        variance_power=config.variance_power,
    )


def fit(
    config: ModelBased,
    learner: Learner,
    rows: Rows,
    key: PRNGKeyArray,
    show: Callable[[int, int, str], None],
) -> Learner:
    """One seed's learner with its model fitted on to these rows, and SAC's units measured anew."""
    k_sides, k_fit, k_termination = jax.random.split(key, 3)
    networks, found = _fit_networks(config, learner.model.ensemble, rows, k_sides, k_fit, show)
    model = eqx.tree_at(lambda m: (m.ensemble, m.elites), learner.model, (networks, jnp.asarray(found.elites)))
    if model.termination is not None:
        count, rate = jnp.asarray(rows.filled), jnp.asarray(config.model_learning_rate)
        fitted = environment_model.fit_termination(
            *(model.termination, CLASSIFIER_UPDATES, config.model_batch_size, *rows[:2], *rows[3:5]),
            *(count, rate, k_termination),
        )
        model = eqx.tree_at(lambda m: m.termination, model, fitted)
    report = {
        **learner.report,
        "model_error": jnp.asarray(math.sqrt(float(found.error[found.elites].mean())), jnp.float32),
        "model_updates": jnp.asarray(found.updates, jnp.float32),
        "refits": learner.report["refits"] + 1,
    }
    sac, units = learner.sac, learner.units
    if config.units == "data":
        places = jnp.asarray(rows.filled), jnp.asarray(rows.newest)
        units = measure_units(config.unit_steps, rows.observation, rows.reward, *places)
        if int(sac.updates):  # before the first, there is nothing to keep
            sac = change_units(sac, learner.units, units)
    return Learner(sac, model, learner.pool, units, report, learner.trigger)


def _fit_networks(
    config: ModelBased,
    networks: Ensemble | RecurrentEnsemble,
    rows: Rows,
    k_sides: PRNGKeyArray,
    k_fit: PRNGKeyArray,
    show: Callable[[int, int, str], None],
) -> tuple[Ensemble | RecurrentEnsemble, Fit]:
    def on_updates(done: int) -> None:
        show(done, config.fit_most, "fitting the model")

    how = fit_options(config), config.elites, k_fit
    if isinstance(networks, RecurrentEnsemble):
        series = _time_series(rows)
        if config.shuffle_actions:
            series = series._replace(a=jax.random.permutation(k_sides, series.a))
        return recurrent_fit.refit(networks, series, rows.filled, rows.environments, *how, on_updates=on_updates)
    x, y = _sides(config, rows[:4], k_sides)
    return ensemble_fit.refit(networks, x, y, rows.filled, *how, on_updates=on_updates)


def _time_series(rows: Rows) -> TimeSeries:
    parts = rows.observation, rows.action, rows.next_observation, rows.continues
    return recurrent_fit.link_rows(*parts, rows.filled, rows.newest, rows.environments)


# --- what is imagined ---


def rollout_steps(config: ModelBased, step: int) -> int:
    """Steps of a roll-out after so many of the run: on a line, rounded towards zero as in the code of [MBPO]."""
    (first, last), (begin, end) = config.rollout_length, config.rollout_growth
    if step <= begin:
        return first
    whole = max(end - begin, 1)
    return (first * whole + min(step - begin, whole) * (last - first)) // whole


def imagine(
    config: ModelBased, learner: Learner, rows: Rows, step: int, key: PRNGKeyArray, penalty: Penalty | None = None
) -> Learner:
    """One seed's learner with what its actor does in the model added to the pool.

    Raises `LegatoError` where the pool is empty even so.
    """
    steps, recent = rollout_steps(config, step), config.recent_starts or rows.filled
    starts = rows.observation, min(recent, rows.filled), rows.newest
    series = _time_series(rows) if isinstance(learner.model.ensemble, RecurrentEnsemble) else None
    found = _imagine(config, rows.environments, penalty, learner, *starts, steps, key, series)
    if int(found.pool.added) == 0:
        raise LegatoError(
            f"none of {config.rollouts} imagined next states is near the data: the model is no good, lower its "
            "`model_learning_rate` or fit it to more data"
        )
    return found


@partial(jax.jit, static_argnums=(0, 1))
def _imagine(
    config: ModelBased,
    environments: int,
    penalty: Penalty | None,
    learner: Learner,
    s: Float[Array, "capacity obs"],
    recent: Int[Array, ""] | int,
    newest: Int[Array, ""] | int,
    steps: Int[Array, ""] | int,
    key: PRNGKeyArray,
    series: TimeSeries | None,
) -> Learner:
    k_start, k_run = jax.random.split(key)
    age = jax.random.randint(k_start, (config.rollouts,), 0, recent)
    actor = NormalisedActor(learner.sac.actor, learner.units.observation)

    def act(s: Array, key: PRNGKeyArray) -> Array:
        pi = actor(s)
        return pi.sample(jax.random.normal(key, pi.mean.shape))[0]

    longest, place = max(config.rollout_length), (newest - age) % len(s)
    memory: Any = ()
    if series is not None:
        memory = learner.model.warm_up(*recurrent_fit.windows(series, place, environments), s[place])
    found = environment_model.roll_out(learner.model, act, s[place], steps, longest, k_run, memory)
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), found)
    of_rows: dict[str, Array] = {}
    if penalty is not None:
        of_rows = penalty(learner.model, flat.observation, flat.action)
        flat = eqx.tree_at(lambda rows: rows.reward, flat, flat.reward - of_rows["penalty"])
    order = jnp.argsort(~flat.alive, stable=True)  # those that are alive first, in the order of their steps
    packed, count = _pack(flat)[order], flat.alive.sum()
    pool = learner.pool
    drawn_from = jnp.asarray(config.rollouts * config.retain, jnp.int32) * steps
    kept = ring.append(pool.rows, packed, pool.added, count)
    alive = jnp.maximum(count, 1)
    report = {
        **learner.report,
        "imagined_steps": count / config.rollouts,
        "imagined_reward": jnp.where(flat.alive, flat.reward, 0).sum() / alive,
        "imagined_lost": flat.lost.sum() / config.rollouts,
        **{name: jnp.where(flat.alive, value, 0).sum() / alive for name, value in of_rows.items()},
    }
    added, capacity = pool.added + count, len(kept)
    added = jnp.where(added < 2 * capacity, added, capacity + added % capacity)
    filled = Pool(kept, added, drawn_from)
    return Learner(learner.sac, learner.model, filled, learner.units, report, learner.trigger)


def _pack(rows: Imagined) -> Float[Array, "rows width"]:
    columns = rows.observation, rows.action, rows.reward[:, None], rows.next_observation, rows.continues[:, None]
    return jnp.concatenate(columns, axis=-1)


def unpack(rows: Float[Array, "*batch width"], spec: Spec) -> Transition:
    """Rows of the pool; what was done before is not kept, and 0."""
    o, a = spec.observation_size, spec.action_size
    s, act, r, s_next, continues = jnp.split(rows, (o, o + a, o + a + 1, 2 * o + a + 1), axis=-1)
    return Transition(s, act, jnp.zeros_like(act), r[..., 0], s_next, continues[..., 0])


# --- the update ---


def real_rows(config: ModelBased) -> int:
    """Real transitions of a minibatch."""
    return int(config.real_share * config.batch_size)


def update(
    config: ModelBased,
    learner: Learner,
    real: Transition,
    key: PRNGKeyArray,
    *,
    losses: soft_actor_critic.Losses = soft_actor_critic.CONTINUOUS,
) -> tuple[Learner, dict[str, Float[Array, ""]]]:
    """One update of SAC on `real` transitions and imagined ones, with actions in units of their bounds."""
    k_draw, k_update = jax.random.split(key) if config.real_share < 1 else (key, key)
    size, spec = real_rows(config), learner.sac.spec
    batch = real
    if config.real_share < 1:
        imagined = learner.pool.draw(k_draw, config.batch_size - size, spec)
        batch = jax.tree.map(lambda r, i: jnp.concatenate([r[:size], i]), real, imagined)
    units = learner.units
    batch = Transition(
        observation=units.observation(batch.observation),
        action=batch.action,
        previous_action=batch.previous_action,
        reward=batch.reward / units.reward,
        next_observation=units.observation(batch.next_observation),
        continues=batch.continues,
    )
    entropy = -spec.action_size if config.target_entropy is None else config.target_entropy
    options = cast(soft_actor_critic.Options, config)
    sac, metrics = soft_actor_critic.update(
        options, learner.sac, batch, k_update, target_entropy=entropy, losses=losses
    )
    found = Learner(sac, learner.model, learner.pool, units, learner.report, learner.trigger)
    return found, {**metrics, **learner.report}


# --- seeds ---


@jax.jit
def select_seed(stacked: Any, i: int | Array) -> Any:
    """What is stacked over seeds, of one of them."""
    return jax.tree.map(lambda leaf: leaf[i], stacked)


@jax.jit
def stack_seeds(of_seeds: list[Any]) -> Any:
    """The inverse, of all."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *of_seeds)


# --- what is deployed ---


def policy(learner: Learner) -> soft_actor_critic.HeldAction:
    """The actor alone, which reads observations in the environment's units."""
    actor = NormalisedActor(learner.sac.actor, learner.units.observation)
    return soft_actor_critic.HeldAction(actor, learner.sac.spec)


def new_policy(config: ModelBased, spec: Spec, key: PRNGKeyArray) -> soft_actor_critic.HeldAction:
    """`policy` of what `init` gives, without what only learns."""
    actor = soft_actor_critic.Actor(spec.with_unit_bounds(), config.hidden, key=jax.random.split(key, 4)[0])
    return soft_actor_critic.HeldAction(NormalisedActor(actor, normaliser.none(spec.observation_size)), spec)
