"""A recurrent network that learns to write the plans of unrolled SAC, so that no model is needed to act (distillation).

    L_w = mean_k |w_k(s) - a_k(s)|^2,     a_0 ... a_{T-1}: the greedy plan in s

for states s of the replay, where w is the actor of SRL (`action_sequence`), which sees the state once and its own
actions since. Plans are computed once for all states that are learnt from.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from legato.algorithms.action_sequence import Actor
from legato.algorithms.protocol import Counts
from legato.algorithms.unrolled_sac.config import UnrolledSAC as Config
from legato.algorithms.unrolled_sac.unrolled_sac import Learner, planned
from legato.data.replay import Replay, scale_actions, unpack
from legato.nn.optimisation import descend, optax
from legato.policy import LastStep

STATES = 20_000
"""of the replay that are learnt from at most, drawn at random"""
BATCH = 64
LEARNING_RATE = 3e-3
"""of Adam, on a line to a twentieth"""
DISPATCH = 250
"""updates per compiled call"""
ENDS = 0.98
"""of the run's updates, after which the plan is written for the last time: step sizes are next to nothing then"""


def refresh_due(config: Config, learner: Learner, last: Counts | None, now: Counts) -> bool:
    """Is it to learn now? At quarters of the run, and when it ends; at first nothing is done."""
    return last is None or bool(_parts(config, last, now))


def _parts(config: Config, last: Counts | None, now: Counts) -> list[float]:
    """Of the updates for the last plan, those that are due, as shares."""
    if config.policy != "written" or last is None:
        return []
    marks = {0.25: 0.25, 0.5: 0.25, 0.75: 0.25, ENDS: 1.0}
    return [share for mark, share in marks.items() if last.updates < mark * config.write_over <= now.updates]


def refresh(
    config: Config,
    learner: Learner,
    replay: Replay,
    keys: PRNGKeyArray | Array,
    show: Callable[[int, int, str], None],
    last: Counts | None,
    now: Counts,
) -> tuple[Learner, Replay]:
    """All seeds' learners, whose writers have learnt from the plans of now."""
    parts = _parts(config, last, now)
    if not parts:
        return learner, replay
    updates = -(-round(parts[-1] * config.write_updates) // DISPATCH) * DISPATCH
    k_states, k_updates = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    states, previous, plans = _plans(config.write_length, learner, replay, k_states)
    writer = learner.writer
    optimiser = jax.vmap(optax.adam(LEARNING_RATE).init)(cast(Any, writer))
    for done in range(0, updates, DISPATCH):
        show(done, updates, "learning to write plans")
        at = jnp.asarray(done), jnp.asarray(updates)
        writer, optimiser = _learn(writer, optimiser, states, previous, plans, k_updates, *at)
    return eqx.tree_at(lambda whole: whole.writer, learner, writer), replay


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
    s: Float[Array, "batch obs"],
    a_prev: Float[Array, "batch act"],
    plan: Float[Array, "batch steps act"],
) -> Float[Array, ""]:
    """L_w."""
    written = writer.greedy(s, a_prev, plan.shape[1])
    return jnp.mean((written - jnp.swapaxes(plan, 0, 1)) ** 2)


@jax.jit
@partial(jax.vmap, in_axes=(0, 0, 0, 0, 0, 0, None, None))
def _learn(
    writer: Actor, optimiser: Any, states: Array, previous: Array, plans: Array, key: PRNGKeyArray, done: Any, end: Any
) -> tuple[Actor, Any]:
    """`DISPATCH` updates of one seed."""

    def update(carry: tuple[Actor, Any], i: Array) -> tuple[tuple[Actor, Any], None]:
        writer, optimiser = carry
        drawn = jax.random.randint(jax.random.fold_in(key, i), (BATCH,), 0, len(states))
        g = jax.grad(writing_loss)(writer, states[drawn], previous[drawn], plans[drawn])
        rate = LEARNING_RATE * jnp.maximum(1 - i / end, 1 / 20)
        return descend(optax.adam(rate), writer, g, optimiser), None

    return jax.lax.scan(update, (writer, optimiser), done + jnp.arange(DISPATCH))[0]
