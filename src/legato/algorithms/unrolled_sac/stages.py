"""What unrolled SAC does when a run ends: it fits its models once more, and learns to write its plans.

    L_m  as in `unrolled_sac`, of `fit_steps` steps, larger minibatches and a step size of its own
    L_w  = mean_k |w_k(s) - a_k(s)|^2 + 0.02 mean_k e_k / (1 + e_k),     e_k = |(z_k(w) - z_k(a)) / unit|^2

for states s of the replay, with a_0 ... a_{T-1} the greedy plan in s and z_k the states to which sequences lead by the
models' mean, in units of how much observations usually change. w is the actor of SRL (`action_sequence`), which sees
the state once and its own actions since: no model is needed to act then (distillation). The second term tells it which
of its errors matter: on an unstable plant small ones that are made early do, and its later actions can make up for
them. e / (1 + e) bounds what a sequence counts that is lost anyway. Plans are computed once for all states.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from legato.algorithms.action_sequence import Actor
from legato.algorithms.protocol import Counts
from legato.algorithms.unrolled_sac.config import UnrolledSAC as Config
from legato.algorithms.unrolled_sac.unrolled_sac import Learner, model_loss, planned
from legato.data.replay import Replay, scale_actions, sequences, unpack
from legato.models.dynamics import Dynamics, mean_prediction
from legato.nn.optimisation import descend, optax
from legato.policy import LastStep

STATES = 20_000
"""of the replay that are learnt from at most, drawn at random"""
BATCH = 64
"""stretches per update of each model, and plans per update of the network that writes them"""
DEVIATION = 0.02
"""how much the states that written sequences lead to count beside their actions"""
FITTING, WRITING = 2e-3, 3e-3
"""step sizes of Adam, on a line to a fiftieth"""
DISPATCH = 250
"""updates per compiled call"""
QUARTERS = (0.25, 0.5, 0.75)
"""of the run's steps, after which it learns to write as well, a quarter as long"""
Show = Callable[[int, int, str], None]


def refresh_due(config: Config, learner: Learner, last: Counts | None, now: Counts) -> bool:
    """Is a quarter of the run over? At first nothing is done."""
    if last is None:
        return True
    return config.policy == "written" and any(last.steps < share * now.end <= now.steps for share in QUARTERS)


def refresh(
    config: Config,
    learner: Learner,
    replay: Replay,
    keys: PRNGKeyArray | Array,
    show: Show,
    last: Counts | None,
    now: Counts,
) -> tuple[Learner, Replay]:
    """All seeds' learners, whose writers have learnt from the plans of now."""
    if last is None:
        return learner, replay
    return write_plans(config, learner, replay, keys, show, -(-config.write_updates // 4)), replay


def finish(config: Config, learner: Learner, replay: Replay, keys: PRNGKeyArray | Array, show: Show) -> Learner:
    """All seeds' learners at the end of the run: their models fitted, and then their writers taught."""
    k_fit, k_write = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    if config.fit_updates:
        models = fit_models(config, learner, replay, k_fit, show)
        learner = eqx.tree_at(lambda whole: (whole.models, whole.target_models), learner, (models, models))
    if config.policy == "written":
        learner = write_plans(config, learner, replay, k_write, show, config.write_updates)
    return learner


def write_plans(
    config: Config, learner: Learner, replay: Replay, keys: PRNGKeyArray | Array, show: Show, updates: int
) -> Learner:
    """All seeds' learners, whose writers have learnt for so many updates."""
    k_states, k_write = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    data = (learner.target_models, *_plans(config.write_length, learner, replay, k_states))
    writer = _learn(_write, data, learner.writer, updates, k_write, lambda done: show(done, updates, "writing plans"))
    return eqx.tree_at(lambda whole: whole.writer, learner, writer)


def fit_models(
    config: Config,
    learner: Learner,
    replay: Replay,
    keys: PRNGKeyArray | Array,
    show: Show,
) -> Dynamics:
    """All seeds' models after `fit_updates` on larger minibatches of all that their replay holds."""
    most, fit = config.fit_updates, partial(_fit, config)
    return _learn(fit, (replay,), learner.models, most, keys, lambda done: show(done, most, "fitting models"))


Network = TypeVar("Network")


def _learn(
    step: Callable[..., Any], source: Any, network: Network, updates: int, keys: Any, on_updates: Callable[[int], None]
) -> Network:
    """All seeds' networks after so many updates by Adam."""
    optimiser = jax.vmap(_adam(1.0).init)(cast(Any, network))
    for done in range(0, updates, DISPATCH):
        on_updates(done)
        network, optimiser = step(network, optimiser, source, keys, jnp.asarray(done), jnp.asarray(updates))
    return network


def _adam(rate: Any) -> optax.GradientTransformation:
    """On gradients of norm 1 at most: those through many predictions may be large."""
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))


def _turn(
    loss: Callable[..., Any], size: float, network: Any, optimiser: Any, key: PRNGKeyArray, done: Any, end: Any
) -> Any:
    """At most `DISPATCH` updates of one seed, of which the first is number `done` of `end`."""

    def update(carry: tuple[Any, Any], i: Array) -> tuple[tuple[Any, Any], None]:
        network, optimiser = carry
        g = jax.grad(loss)(network, jax.random.fold_in(key, i))
        rate = size * jnp.maximum(1 - i / end, 1 / 50) * (i < end)
        return descend(_adam(rate), network, g, optimiser), None

    return jax.lax.scan(update, (network, optimiser), done + jnp.arange(DISPATCH))[0]


@partial(jax.jit, static_argnums=0)
@partial(jax.vmap, in_axes=(None, 0, 0, 0, 0, None, None))
def _fit(
    config: Config, models: Dynamics, optimiser: Any, source: tuple[Replay], key: PRNGKeyArray, done: Any, end: Any
) -> tuple[Dynamics, Any]:
    """Of the models."""
    (replay,) = source

    def loss(models: Dynamics, key: PRNGKeyArray) -> Float[Array, ""]:
        stretches = sequences(replay, key, BATCH * config.members, config.fit_steps)
        return model_loss(models, config, scale_actions(stretches, replay.spec))

    return _turn(loss, FITTING, models, optimiser, key, done, end)


@partial(jax.jit, static_argnums=0)
@partial(jax.vmap, in_axes=(None, 0, 0, 0))
def _plans(length: int, learner: Learner, replay: Replay, key: PRNGKeyArray) -> tuple[Array, Array, Array]:
    """States, the actions before them and greedy plans in them, of one seed. Actions are in units of their bounds."""
    most = min(STATES, replay.capacity)
    place = jax.random.permutation(key, replay.capacity)[:most] % replay.size
    rows = scale_actions(unpack(replay.rows[place], learner.spec), learner.spec)
    teacher = planned(learner)
    none = jnp.zeros(learner.spec.action_size)

    def plan(s: Array) -> Array:
        return learner.spec.normalise(teacher.decide(LastStep(s, none), None, length)[0])

    return rows.observation, rows.previous_action, jax.lax.map(plan, rows.observation, batch_size=500)


def writing_loss(
    writer: Actor,
    models: Dynamics,
    s: Float[Array, "batch obs"],
    a_prev: Float[Array, "batch act"],
    plan: Float[Array, "batch steps act"],
) -> Float[Array, ""]:
    """L_w. Gradients go through the models' predictions."""
    written, plan = writer.greedy(s, a_prev, plan.shape[1]), jnp.swapaxes(plan, 0, 1)
    unit = jax.vmap(lambda model: model.scale)(models).mean(axis=0)
    off = (predicted_states(models, s, written) - predicted_states(models, s, plan)) / unit
    e = jnp.mean(off**2, axis=-1)
    return jnp.mean((written - plan) ** 2) + DEVIATION * jnp.mean(e / (1 + e))


def predicted_states(
    models: Dynamics, s: Float[Array, "batch obs"], actions: Float[Array, "steps batch act"]
) -> Float[Array, "steps batch obs"]:
    """z_1 ... z_T."""

    def step(z: Array, a: Array) -> tuple[Array, Array]:
        z = mean_prediction(models, z, a)
        return z, z

    return jax.lax.scan(step, s, actions)[1]


@jax.jit
@partial(jax.vmap, in_axes=(0, 0, 0, 0, None, None))
def _write(
    writer: Actor, optimiser: Any, source: tuple[Any, ...], key: PRNGKeyArray, done: Any, end: Any
) -> tuple[Actor, Any]:
    """Of the network that writes plans."""

    def loss(writer: Actor, key: PRNGKeyArray) -> Float[Array, ""]:
        models, *data = source
        drawn = jax.random.randint(key, (BATCH,), 0, len(data[0]))
        return writing_loss(writer, models, *(part[drawn] for part in data))

    return _turn(loss, WRITING, writer, optimiser, key, done, end)
