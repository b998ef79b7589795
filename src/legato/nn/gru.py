"""Recurrent cells: one step of a GRU (Cho et al. 2014) and of a plain RNN, with two bias vectors as cuDNN has them."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from legato.nn.mlp import Linear


class GRUCell(eqx.Module):
    """h' = (1 - z) n + z h with gates r, z and candidate n = tanh(W_n x + b_n + r (U_n h + c_n))."""

    x: Linear
    h: Linear

    def __init__(self, inputs: int, hidden: int, *, key: PRNGKeyArray):
        self.x, self.h = _layers(key, inputs, hidden, gates=3)

    def __call__(
        self, h: Float[Array, "*batch hidden"], x: Float[Array, "*batch inputs"]
    ) -> Float[Array, "*batch hidden"]:
        r_x, z_x, n_x = jnp.split(self.x(x), 3, axis=-1)
        r_h, z_h, n_h = jnp.split(self.h(h), 3, axis=-1)
        r = jax.nn.sigmoid(r_x + r_h)
        z = jax.nn.sigmoid(z_x + z_h)
        n = jnp.tanh(n_x + r * n_h)
        return n + z * (h - n)


class RNNCell(eqx.Module):
    """h' = tanh(W x + b + U h + c)."""

    x: Linear
    h: Linear

    def __init__(self, inputs: int, hidden: int, *, key: PRNGKeyArray):
        self.x, self.h = _layers(key, inputs, hidden, gates=1)

    def __call__(
        self, h: Float[Array, "*batch hidden"], x: Float[Array, "*batch inputs"]
    ) -> Float[Array, "*batch hidden"]:
        return jnp.tanh(self.x(x) + self.h(h))


def _layers(key: PRNGKeyArray, inputs: int, hidden: int, gates: int) -> tuple[Linear, Linear]:
    """The layers of x and of h, drawn from U(-1/sqrt(hidden), 1/sqrt(hidden)), the usual default of recurrent cells."""
    k_x, k_h = jax.random.split(key)
    bound = hidden**-0.5
    return (
        Linear.uniform(inputs, gates * hidden, bound, key=k_x),
        Linear.uniform(hidden, gates * hidden, bound, key=k_h),
    )
