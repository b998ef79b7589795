"""What both do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from tests.fakes.config import Counter as Config

from legato.algorithms.protocol import Counts
from legato.data.replay import Replay
from legato.data.spec import Spec
from legato.policy import LastStep, Policy, Step, hold_action


class Learner(eqx.Module):
    """x follows what is drawn and what the model says. A seed that begins below zero is weak."""

    x: jax.Array
    weak: jax.Array
    model: jax.Array
    updates: jax.Array
    spec: Spec = eqx.field(static=True)


class Constant(Policy[LastStep]):
    """Always the same action, with some noise where it is drawn."""

    x: jax.Array
    spec: Spec = eqx.field(static=True)

    def init_state(self, command: Any) -> LastStep:
        return LastStep.empty(self.spec)

    def observe(self, state: LastStep, step: Step) -> LastStep:
        return LastStep.of(step)

    def decide(self, state: LastStep, key: jax.Array | None, length: int) -> tuple[jax.Array, LastStep]:
        noise = 0.0 if key is None else jax.random.normal(key)
        return hold_action(jnp.tanh(self.x + noise)[None], length), state


def init(config: Config, spec: Spec, key: jax.Array, statistics: Any = None) -> Learner:
    x = jax.random.normal(key)
    return Learner(x, x < 0, jnp.full((), jnp.nan), jnp.zeros((), jnp.int32), spec)


def learn(config: Config, learner: Learner, paid: jax.Array, key: jax.Array) -> tuple[Learner, dict[str, jax.Array]]:
    x = 0.9 * learner.x + 0.01 * paid.mean() + 0.01 * learner.model + 0.01 * jax.random.normal(key)
    if config.breaks_after:
        x = jnp.where(learner.weak & (learner.updates >= config.breaks_after), jnp.nan, x)
    found = Learner(x, learner.weak, learner.model, learner.updates + 1, learner.spec)
    return found, {"x": x, "model": learner.model}


def policy(config: Config, learner: Learner) -> Constant:
    return Constant(learner.x, learner.spec)


def new_policy(config: Config, spec: Spec, key: jax.Array) -> Constant:
    return Constant(jax.random.normal(key), spec)


def plan_length(config: Config) -> int:
    return 1


def refresh_due(config: Config, learner: Learner, last: Counts | None, now: Counts) -> bool:
    """Before the first update, and so many later."""
    return last is None or (config.refresh_every > 0 and now.updates - last.updates >= config.refresh_every)


asked: list[int] = []
"""updates that had been made at each refresh"""


def refresh(
    config: Config,
    learner: Learner,
    source: Any,
    keys: jax.Array,
    show: Callable[[int, int, str], None],
    last: Counts | None,
    now: Counts,
) -> tuple[Learner, Any]:
    """The model becomes a draw about the largest of all numbers that there are, of a replay the seed's own."""
    asked.append(int(learner.updates[0]))
    leaves = [leaf for leaf in jax.tree.leaves(source) if leaf.dtype == jnp.float32]
    each = len(keys) if isinstance(source, Replay) else 1
    largest = jnp.stack([leaf.reshape(each, -1).max(axis=1) for leaf in leaves]).max(axis=0)
    show(1, 2, "the model")
    model = largest + 0.1 * jax.vmap(jax.random.normal)(keys)
    show(2, 2, "the model")
    return eqx.tree_at(lambda whole: whole.model, learner, model), source
