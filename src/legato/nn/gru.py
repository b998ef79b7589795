"""Recurrent cells: one step of a GRU (Cho et al. 2014) and of a plain RNN, with two bias vectors as cuDNN has them."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


def _uniform(key: PRNGKeyArray, inputs: int, hidden: int, gates: int) -> tuple[Array, Array, Array, Array]:
    """(W_x, W_h, b_x, b_h) drawn from U(-1/sqrt(hidden), 1/sqrt(hidden)), the usual default for recurrent cells."""
    bound = hidden**-0.5
    shapes = ((inputs, gates * hidden), (hidden, gates * hidden), (gates * hidden,), (gates * hidden,))
    keys = jax.random.split(key, 4)
    w_x, w_h, b_x, b_h = (
        jax.random.uniform(k, shape, minval=-bound, maxval=bound) for k, shape in zip(keys, shapes, strict=True)
    )
    return w_x, w_h, b_x, b_h


class GRUCell(eqx.Module):
    """h' = (1 - z) n + z h with gates r, z and candidate n = tanh(W_n x + b_n + r (U_n h + c_n))."""

    w_x: Float[Array, "inputs gates"]
    w_h: Float[Array, "hidden gates"]
    b_x: Float[Array, " gates"]
    b_h: Float[Array, " gates"]

    def __init__(self, inputs: int, hidden: int, *, key: PRNGKeyArray):
        self.w_x, self.w_h, self.b_x, self.b_h = _uniform(key, inputs, hidden, gates=3)

    def __call__(
        self, h: Float[Array, "*batch hidden"], x: Float[Array, "*batch inputs"]
    ) -> Float[Array, "*batch hidden"]:
        r_x, z_x, n_x = jnp.split(x @ self.w_x + self.b_x, 3, axis=-1)
        r_h, z_h, n_h = jnp.split(h @ self.w_h + self.b_h, 3, axis=-1)
        r = jax.nn.sigmoid(r_x + r_h)
        z = jax.nn.sigmoid(z_x + z_h)
        n = jnp.tanh(n_x + r * n_h)
        return n + z * (h - n)


class RNNCell(eqx.Module):
    """h' = tanh(W x + b + U h + c)."""

    w_x: Float[Array, "inputs hidden"]
    w_h: Float[Array, "hidden hidden"]
    b_x: Float[Array, " hidden"]
    b_h: Float[Array, " hidden"]

    def __init__(self, inputs: int, hidden: int, *, key: PRNGKeyArray):
        self.w_x, self.w_h, self.b_x, self.b_h = _uniform(key, inputs, hidden, gates=1)

    def __call__(
        self, h: Float[Array, "*batch hidden"], x: Float[Array, "*batch inputs"]
    ) -> Float[Array, "*batch hidden"]:
        return jnp.tanh(x @ self.w_x + self.b_x + h @ self.w_h + self.b_h)
