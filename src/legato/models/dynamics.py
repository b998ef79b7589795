"""A deterministic one-step model of an environment: s' = m(s, a).

The model that SRL learns from (Patel & Siegelmann, arXiv 2410.08979): an MLP that predicts the absolute next
observation, trained by mean-squared error on real transitions. No reward head, no termination head.
"""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from legato.nn.mlp import MLP


class Dynamics(eqx.Module):
    """m(s, a) -> s', in the units of the observations."""

    mlp: MLP

    def __init__(self, observation_size: int, action_size: int, hidden: Sequence[int], *, key: PRNGKeyArray):
        self.mlp = MLP((observation_size + action_size, *hidden, observation_size), key=key)

    def __call__(self, s: Float[Array, "*batch obs"], a: Float[Array, "*batch act"]) -> Float[Array, "*batch obs"]:
        return self.mlp(jnp.concatenate([s, a], axis=-1))


def loss(
    model: Dynamics,
    s: Float[Array, "batch obs"],
    a: Float[Array, "batch act"],
    s_next: Float[Array, "batch obs"],
) -> Float[Array, ""]:
    """Mean-squared one-step error, over the batch and the observation's dimensions."""
    return jnp.mean((model(s, a) - s_next) ** 2)


def unroll(
    model: Dynamics, s: Float[Array, "*batch obs"], actions: Float[Array, "steps *batch act"]
) -> Float[Array, "steps *batch obs"]:
    """The states in which the actions are taken: s itself, then the model's predictions. No gradient flows through.

    The last action is taken in the last state, so the model is asked one time less than there are actions.
    """
    model, s, actions = jax.lax.stop_gradient((model, s, actions))

    def predict(s: Array, a: Array) -> tuple[Array, Array]:
        s_next = model(s, a)
        return s_next, s_next

    _, predicted = jax.lax.scan(predict, s, actions[:-1])
    return jnp.concatenate([s[None], predicted])
