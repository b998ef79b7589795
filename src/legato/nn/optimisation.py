"""Steps of gradient descent and of target networks."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import jax
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


def descend(
    optimiser: optax.GradientTransformation, network: Network, gradient: Any, state: optax.OptState
) -> tuple[Network, optax.OptState]:
    """One step of an optimiser: the changed network and the optimiser's new state."""
    change, state = optimiser.update(gradient, state)
    return cast(Network, optax.apply_updates(cast(Any, network), change)), state


def polyak(target: Network, online: Network, tau: float) -> Network:
    """target <- (1 - tau) target + tau online, leaf by leaf."""
    return jax.tree.map(lambda t, o: t + tau * (o - t), target, online)
