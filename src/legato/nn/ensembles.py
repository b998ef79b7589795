"""Several networks of one architecture, evaluated together."""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from legato.nn.mlp import MLP


class TwinCritic(eqx.Module):
    """Two independent action values Q_1, Q_2 of one state and one primitive action (Fujimoto et al. 2018)."""

    q1: MLP
    q2: MLP

    def __init__(self, observation_size: int, action_size: int, hidden: Sequence[int], *, key: PRNGKeyArray):
        sizes = (observation_size + action_size, *hidden, 1)
        key1, key2 = jax.random.split(key)
        self.q1, self.q2 = MLP(sizes, key=key1), MLP(sizes, key=key2)

    def __call__(
        self, s: Float[Array, "*batch obs"], a: Float[Array, "*batch act"]
    ) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
        sa = jnp.concatenate([s, a], axis=-1)
        return self.q1(sa)[..., 0], self.q2(sa)[..., 0]
