"""What stands between linear layers: normalisation and dropout."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, UInt8


class LayerNorm(eqx.Module):
    """(x - mean) / sqrt(variance + 1e-5) over the last axis, scaled and shifted."""

    scale: Float[Array, " size"]
    shift: Float[Array, " size"]

    def __init__(self, size: int):
        self.scale, self.shift = jnp.ones(size), jnp.zeros(size)

    def __call__(self, x: Float[Array, "*batch size"]) -> Float[Array, "*batch size"]:
        centred = x - x.mean(-1, keepdims=True)
        return centred * jax.lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True) + 1e-5) * self.scale + self.shift


def toss(key: PRNGKeyArray, shape: tuple[int, ...]) -> UInt8[Array, "*shape"]:
    """Random bytes for dropout, four to a number of the generator, whose work would show otherwise."""
    size = math.prod(shape)
    words = jax.random.bits(key, (-(-size // 4),))
    return jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(-1)[:size].reshape(shape)


def drop(x: Float[Array, "*shape"], rate: float, tossed: UInt8[Array, "*shape"] | None) -> Float[Array, "*shape"]:
    """Dropout at `rate`, rounded to 1/256, where random bytes are given."""
    if tossed is None or rate == 0:
        return x
    out = round(256 * rate)
    return jnp.where(tossed >= out, x * (256 / (256 - out)), 0)
