"""Several networks of one architecture, evaluated together."""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from legato.nn.mlp import MLP


class TwinCritic(eqx.Module):
    """Two independent action values Q_1, Q_2 of one state and one primitive action (Fujimoto et al. 2018).

    Their weights are stacked along a leading axis: two threads then take a critic each, which is faster than both
    threads sharing each product of two small matrices.
    """

    q: MLP

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        hidden: Sequence[int],
        *,
        norm: bool = False,
        key: PRNGKeyArray,
    ):
        sizes = (observation_size + action_size, *hidden, 1)
        self.q = jax.vmap(lambda k: MLP(sizes, norm=norm, key=k))(jax.random.split(key))

    def __call__(
        self, s: Float[Array, "*batch obs"], a: Float[Array, "*batch act"]
    ) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
        sa = jnp.concatenate([s, a], axis=-1)
        q1, q2 = jax.vmap(lambda q: q(sa))(self.q)[..., 0]
        return q1, q2
