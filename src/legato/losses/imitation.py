"""How far what a network would do is from what was done.

    e = |a^ - a|^2 / |A|       a^: the action that a network's output stands for
    e = -log p(a)              p = softmax(output), where an action is a choice

Losses are means of e over the steps that count (`means`).
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from legato.nn.optimisation import optax


def squared_error(predicted: Float[Array, "*batch act"], actions: Float[Array, "*batch act"]) -> Float[Array, "*batch"]:
    """The mean square over an action's numbers."""
    return jnp.mean((predicted - actions) ** 2, axis=-1)


def cross_entropy(logits: Float[Array, "*batch choices"], choice: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
    """-log p of each choice, in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, choice)


def action_error(
    given: Float[Array, "*batch outputs"],
    actions: Float[Array, "*batch outputs"] | Int[Array, "*batch"],
    squash: Callable[[Array], Array] | None = None,
) -> Float[Array, "*batch"]:
    """e of what a network gives: of `squash(given)`, or, where actions are choices, of logits. Choices are whole."""
    if jnp.issubdtype(actions.dtype, jnp.integer):
        return cross_entropy(given, actions)
    return squared_error(given if squash is None else squash(given), actions)
