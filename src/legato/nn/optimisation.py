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
"""What is left of a step size at the end of its fall."""


def annealed(learning_rate: float, over: int, updates: Int[Array, ""]) -> float | Float[Array, ""]:
    """The step size of an update: it falls linearly to `FLOOR` of itself over `over` updates; 0 leaves it constant."""
    if over < 0:
        raise LegatoError("anneal_over = -1 stands for the whole run, which only a training run knows")
    return learning_rate * jnp.maximum(FLOOR, 1 - updates / over) if over else learning_rate


def descend(
    optimiser: optax.GradientTransformation, network: Network, gradient: Any, state: optax.OptState
) -> tuple[Network, optax.OptState]:
    """One step of an optimiser: the changed network and the optimiser's new state."""
    change, state = optimiser.update(gradient, state)
    return cast(Network, optax.apply_updates(cast(Any, network), change)), state


def polyak(target: Network, online: Network, tau: float) -> Network:
    """target <- (1 - tau) target + tau online, leaf by leaf."""
    return jax.tree.map(lambda t, o: t + tau * (o - t), target, online)
