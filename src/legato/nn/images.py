"""An encoder of images."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from legato.nn.layers import LayerNorm
from legato.nn.mlp import Linear

GRID = 8  # patches beside one another and above one another, at most
SMALLEST = 2  # pixels of a patch, in height and width
EMBEDDING, FEATURES = 32, 64  # numbers of a patch, and of an image


class PatchEncoder(eqx.Module):
    """An image as `FEATURES` numbers: linear embeddings of patches, ReLU, a linear layer over all, norm and tanh.

    The patches are those of a grid of at most `GRID` by `GRID`, as in a Vision Transformer (Dosovitskiy et al. 2021);
    norm and tanh end the encoder as in DrQ (Yarats et al. 2021). All products are of matrices, which is fast also where
    convolutions of several seeds are not.
    """

    embed: Linear
    join: Linear
    norm: LayerNorm
    shape: tuple[int, int, int] = eqx.field(static=True)
    """height, width and channels"""
    patch: tuple[int, int] = eqx.field(static=True)
    """of a patch, height and width"""
    axes: tuple[tuple[int, ...], tuple[int, ...]] = eqx.field(static=True)
    """shape of an image as it is stored, and the order of its axes that makes it `shape`"""

    def __init__(self, shape: tuple[int, ...], *, key: PRNGKeyArray):
        k_embed, k_join = jax.random.split(key)
        order = channels_last(shape)
        height, width = shape[order[0]], shape[order[1]]
        channels = math.prod(shape) // (height * width)
        self.axes, self.shape = (tuple(shape), order), (height, width, channels)
        self.patch = (max(SMALLEST, -(-height // GRID)), max(SMALLEST, -(-width // GRID)))
        rows, columns = (-(-n // p) for n, p in zip((height, width), self.patch, strict=True))
        self.embed = Linear(math.prod(self.patch) * channels, EMBEDDING, key=k_embed)
        self.join = Linear(rows * columns * EMBEDDING, FEATURES, key=k_join)
        self.norm = LayerNorm(FEATURES)

    def __call__(self, x: UInt8[Array, "*batch obs"] | Float[Array, "*batch obs"]) -> Float[Array, "*batch features"]:
        """Of bytes, or of numbers from 0 to 1."""
        return jnp.tanh(self.norm(self.join(jax.nn.relu(self.embed(self.patches(x))).reshape(*x.shape[:-1], -1))))

    def patches(
        self, x: UInt8[Array, "*batch obs"] | Float[Array, "*batch obs"]
    ) -> Float[Array, "*batch patches numbers"]:
        """The image's patches, row after row, from 0 to 1; at the right and below, zeros complete them."""
        if x.dtype == jnp.uint8:
            x = x.astype(jnp.float32) / 255
        lead, (stored, order), (height, width, channels), (p, q) = x.shape[:-1], self.axes, self.shape, self.patch
        n = len(lead)
        x = x.reshape(*lead, *stored).transpose(*range(n), *(n + axis for axis in order))
        x = x.reshape(*lead, height, width, channels)
        x = jnp.pad(x, [(0, 0)] * n + [(0, -height % p), (0, -width % q), (0, 0)])
        rows, columns = x.shape[n] // p, x.shape[n + 1] // q
        x = jnp.swapaxes(x.reshape(*lead, rows, p, columns, q, channels), n + 1, n + 2)
        return x.reshape(*lead, rows * columns, p * q * channels)


def channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The order of an image's axes that puts height and width first, and all channels behind.

    `(height, width)` has none; of three axes the first or the last counts channels, whichever is shorter, the last
    where both are as long; of `(frames, height, width, channels)` frames count as channels.
    """
    if len(shape) == 2:
        return (0, 1)
    if len(shape) == 3:
        return (1, 2, 0) if shape[0] < shape[2] else (0, 1, 2)
    return (1, 2, 0, *range(3, len(shape)))
