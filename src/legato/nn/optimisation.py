"""Steps of gradient descent and of target networks."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import jax
import optax

Network = TypeVar("Network")


def descend(
    optimiser: optax.GradientTransformation, network: Network, gradient: Any, state: optax.OptState
) -> tuple[Network, optax.OptState]:
    """One step of an optimiser: the changed network and the optimiser's new state."""
    change, state = optimiser.update(gradient, state)
    return cast(Network, optax.apply_updates(cast(Any, network), change)), state


def polyak(target: Network, online: Network, tau: float) -> Network:
    """target <- (1 - tau) target + tau online, leaf by leaf."""
    return jax.tree.map(lambda t, o: t + tau * (o - t), target, online)
