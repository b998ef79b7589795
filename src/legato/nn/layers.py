"""What stands between linear layers: normalisation and dropout."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, UInt8, UInt32


def standardise(x: Float[Array, "*any"], axis: int) -> Float[Array, "*any"]:
    """(x - mean) / sqrt(variance + 1e-5) over an axis."""
    centred = x - x.mean(axis, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred**2, axis, keepdims=True) + 1e-5)


class LayerNorm(eqx.Module):
    """(x - mean) / sqrt(variance + 1e-5) over the last axis, scaled and shifted."""

    scale: Float[Array, " size"]
    shift: Float[Array, " size"]

    def __init__(self, size: int):
        self.scale, self.shift = jnp.ones(size), jnp.zeros(size)

    def __call__(self, x: Float[Array, "*batch size"]) -> Float[Array, "*batch size"]:
        return standardise(x, -1) * self.scale + self.shift


def dropout_bits(key: PRNGKeyArray, shape: tuple[int, ...]) -> UInt8[Array, "*shape"]:
    """Random bytes for dropout: a counter, mixed twice with words of the key, four bytes to a word.

    JAX's own generator takes several times as long, which would show in an update. Dropout asks for no more than bytes
    that do not hang together, which the mixing (the finaliser of Appleby's MurmurHash3) gives.
    """
    size = math.prod(shape)
    first, second = jax.random.bits(key, (2,))
    words = _mixed(_mixed(jax.lax.iota(jnp.uint32, -(-size // 4)) ^ first) + second)
    return jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(-1)[:size].reshape(shape)


def _mixed(word: UInt32[Array, " words"]) -> UInt32[Array, " words"]:
    """Each bit of a word changes half of the bits of what comes out; no two words become the same."""
    word = (word ^ (word >> 16)) * jnp.uint32(0x85EBCA6B)
    word = (word ^ (word >> 13)) * jnp.uint32(0xC2B2AE35)
    return word ^ (word >> 16)


def drop(x: Float[Array, "*shape"], rate: float, bits: UInt8[Array, "*shape"] | None) -> Float[Array, "*shape"]:
    """Dropout at `rate`, rounded to 1/256, where random bytes are given."""
    if bits is None or rate == 0:
        return x
    out = round(256 * rate)
    return jnp.where(bits >= out, x * (256 / (256 - out)), 0)
