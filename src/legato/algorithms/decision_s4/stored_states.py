"""The replay of the actor-critic: single steps, each with the state that the recurrence had before it.

A fine-tuning names it `replay`; its functions are those of `protocol.Replay`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from legato.algorithms.decision_s4.config import DS4 as Base
from legato.algorithms.decision_s4.config import DS4AC as Config
from legato.algorithms.decision_s4.decision_s4 import Network
from legato.algorithms.protocol import Counts
from legato.data import recurrent_replay
from legato.data.recurrent_replay import Episode, RecurrentReplay, StateTransition
from legato.data.spec import Spec

Metrics = dict[str, Float[Array, ""]]
SMALLER = "train the policy with core s5 or a smaller order"


def state_size(base: Base, spec: Spec) -> int:
    """Numbers of all states of a policy."""
    start = jax.eval_shape(lambda key: Network(base, spec, key=key).start(), jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(start))


def size(config: Config, base: Base, spec: Spec, capacity: int, longest: int) -> tuple[int, int]:
    """The rows of the replay, and how many numbers it keeps of each."""
    return capacity, recurrent_replay.width(spec, state_size(base, spec))


def create(config: Config, base: Base, spec: Spec, capacity: int, longest: int) -> RecurrentReplay:
    """An empty replay."""
    return recurrent_replay.create(spec, state_size(base, spec), capacity)


def add(config: Config, learner: Any, replay: RecurrentReplay, episode: Episode) -> tuple[RecurrentReplay, Metrics]:
    """Put an episode into the replay, with the states that today's actor has on its way through it.

    The states are those of the returns that are kept with them: what was asked for or, with `relabel`, what was
    earned. The metric is the largest difference between what the head gives as a recurrence and as a convolution.
    """
    base, statistics = learner.base, learner.statistics
    ret = episode.returns_to_go(base.gamma) if config.relabel else episode.target_returns_to_go(base.gamma)
    ret = jnp.broadcast_to(episode.target, ret.shape) if base.delay_rewards else ret
    action = statistics.normalise_actions(episode.actions)
    previous = jnp.where(episode.row[:, None] > 0, jnp.roll(action, 1, axis=0), 0)
    last = episode.row == episode.steps - 1
    given = statistics.normaliser(episode.observations), previous, statistics.scale_return(ret)
    states, read = walk(learner.actor, given)
    real = episode.row < episode.steps
    transition = StateTransition(
        episode.observations,
        previous,
        action,
        jnp.where(real, episode.rewards, 0),
        ret,
        jnp.where(last & episode.terminated, 0.0, 1.0),
        real.astype(jnp.float32),
        states,
    )
    gap = jnp.max(jnp.abs(learner.actor(*given) - read @ learner.actor.out), axis=-1)
    gap = jnp.max(jnp.where(real, gap, 0))
    return recurrent_replay.add(
        replay, recurrent_replay.pack(transition), jnp.where(episode.steps > 0, episode.steps + 1, 0)
    ), {"gap": gap}


def walk(network: Network, given: tuple[Array, Array, Array]) -> tuple[Float[Array, "rows state"], Array]:
    """The states before each step of an episode, `[rows, state]`, and what the head reads at it."""
    entry, discrete = network.entry(), network.discrete()

    def step(states: Any, at: tuple[Array, Array, Array]) -> tuple[Any, tuple[Array, Array]]:
        after, read = network.step(entry, discrete, states, *at)
        return after, (ravel_pytree(states)[0], read)

    return jax.lax.scan(step, network.start(), given)[1]


def refresh_due(config: Config, learner: Any, last: Counts | None, now: Counts) -> bool:
    """Are stored states to be computed anew after so many updates, when they were after `last`?"""
    every = config.refresh_every
    return bool(every) and now.updates // every > (last.updates if last else 0) // every


def refresh(
    config: Config,
    learner: Any,
    replay: RecurrentReplay,
    keys: jax.Array,
    show: Callable[[int, int, str], None],
    last: Counts | None,
    now: Counts,
) -> tuple[Any, RecurrentReplay]:
    """The replays of all seeds with their states computed anew by today's actors."""
    return learner, _renewed(learner, replay)


@partial(jax.jit, donate_argnums=(1,))
def _renewed(learners: Any, replays: RecurrentReplay) -> RecurrentReplay:
    return jax.vmap(renew)(learners, replays)


def renew(learner: Any, replay: RecurrentReplay) -> RecurrentReplay:
    """The replay with all its states computed anew by today's actor.

    Of the oldest episode, whose beginning may be overwritten, the first state that is left stays as it was.
    """
    network, statistics = learner.actor, learner.statistics
    entry, discrete = network.entry(), network.discrete()
    begin, unravel = ravel_pytree(network.start())
    oldest = jnp.where(replay.added > replay.capacity, replay.added % replay.capacity, 0)

    def turn(i: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        rows, state, begins = carry
        at = (oldest + i) % replay.capacity
        row = jax.lax.dynamic_index_in_dim(rows, at, keepdims=False)
        transition = recurrent_replay.unpack(row, replay.spec)
        state = jnp.where(i == 0, transition.state, jnp.where(begins, begin, state))
        given = (
            statistics.normaliser(transition.observation),
            transition.previous,
            statistics.scale_return(transition.ret),
        )
        after, _ = network.step(entry, discrete, unravel(state), *given)
        rows = jax.lax.dynamic_update_index_in_dim(rows, row.at[-state.size :].set(state), at, 0)
        return rows, ravel_pytree(after)[0], transition.valid == 0

    rows, *_ = jax.lax.fori_loop(0, replay.size, turn, (replay.rows, begin, jnp.zeros((), bool)))
    return RecurrentReplay(rows, replay.added, replay.spec)


def state(replay: RecurrentReplay) -> dict[str, np.ndarray]:
    """The filled part of the replays, of all seeds."""
    filled = int(np.max(np.minimum(replay.added, replay.rows.shape[1])))
    return {"rows": np.array(replay.rows[:, :filled]), "added": np.array(replay.added)}


def restore(replay: RecurrentReplay, state: dict[str, np.ndarray]) -> RecurrentReplay:
    rows = replay.rows.at[:, : state["rows"].shape[1]].set(state["rows"])
    return RecurrentReplay(rows, jnp.asarray(state["added"]), replay.spec)
