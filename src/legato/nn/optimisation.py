"""Steps of gradient descent and of target networks."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from legato.errors import LegatoError

Network = TypeVar("Network")

FLOOR = 1 / 20
"""The least share of a step size that is left."""


def annealed(learning_rate: float, over: int, updates: Int[Array, ""]) -> float | Float[Array, ""]:
    """The step size of an update: on a line to zero over `over` updates, never below `FLOOR` of itself; 0: constant.

    Raises `LegatoError` for -1, which `training.online.start` replaces by a number.
    """
    if over < 0:
        raise LegatoError("anneal_over = -1 stands for the whole run, which only a training run knows")
    if over == 0:
        return learning_rate
    fall = optax.linear_schedule(learning_rate, FLOOR * learning_rate, max(1, round((1 - FLOOR) * over)))
    return cast(Array, fall(updates))


def adamw(rate: optax.Schedule, decay: float, clip: float) -> optax.GradientTransformation:
    """AdamW on a gradient of global norm `clip` at most."""
    return optax.chain(optax.clip_by_global_norm(clip), optax.adamw(rate, weight_decay=decay))


def warmed(learning_rate: float, over: int, anneal_over: int = 0) -> optax.Schedule:
    """The step size of the i-th update: min(1, (i + 1) / over) of what `annealed` leaves of `learning_rate`."""
    return lambda i: annealed(learning_rate, anneal_over, jnp.asarray(i)) * jnp.minimum(1.0, (i + 1) / max(over, 1))


def descend(
    optimiser: optax.GradientTransformation, network: Network, gradient: Any, state: optax.OptState
) -> tuple[Network, optax.OptState]:
    """One step of an optimiser: the changed network and the optimiser's new state."""
    change, state = optimiser.update(gradient, state, cast(Any, network))
    return cast(Network, optax.apply_updates(cast(Any, network), change)), state


def polyak(target: Network, online: Network, tau: float) -> Network:
    """target <- (1 - tau) target + tau online, leaf by leaf."""
    return jax.tree.map(lambda t, o: t + tau * (o - t), target, online)
