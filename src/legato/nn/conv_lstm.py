"""A convolutional LSTM of a field on a periodic grid (Shi et al. 2015, arXiv 1506.04214), as a surrogate of a plant.

After Werner & Peitz 2023 (arXiv 2302.07160) and its code. Of normalised fields u_t and the forcing phi_t of actions:

    h_t  <- E(u_t)   while the true field is shown; afterwards the LSTM's own h_t
    (i, f, g, o) = conv(F(phi_t), h_t) + (0, 0, 0, 1)
    c_{t+1} = sigma(f) c_t + sigma(i) tanh(g),   h_{t+1} = sigma(o) tanh(c_{t+1})
    D(h_{t+1}) = the field's normalised change from t to t + 1

E and F halve the grid twice, by three residual blocks

    block(x) = SiLU(conv_3 SiLU(conv_3 x)) + conv_1 x        the first conv_3, and conv_1, with a stride

without biases, and D doubles it twice by transposed convolutions, before convolutions of 7 and 5 points. So a shift of
field and forcing by a multiple of `STRIDE` points shifts what is predicted. With `norm`, as published, what comes from
every SiLU and every block is normalised over the grid, and with it how large fields, forcings and changes are.

Convolutions are shifted copies and one matrix product, as XLA's own is slow where members are stacked (measured in
`nn/circulant.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from legato.errors import LegatoError
from legato.nn.circulant import Forcing
from legato.nn.layers import standardise

STRIDE = 4
"""points of the field for one of the memory"""
HIDDEN = 16
"""channels of h and c"""
FIELD, FORCED = (8, 16, HIDDEN), (2, 4, 4)
"""channels of the blocks of E and of F"""
DENSE = 1 << 16
"""numbers of the largest matrix as which a convolution is applied"""
TRUNCATED = 10
"""steps after which no gradient goes further back"""


class Convolution(eqx.Module):
    """y_i = b + sum_j w_j x_(stride i + j), j counted from the kernel's middle, on a circle.

    Weights are uniform with variance 1 / (kernel * inputs), biases 0 where there are any.
    """

    weight: Float[Array, "kernel inputs outputs"]
    bias: Float[Array, " outputs"] | None
    stride: int = eqx.field(static=True)

    def __init__(
        self, kernel: int, inputs: int, outputs: int, *, stride: int = 1, bias: bool = False, key: PRNGKeyArray
    ):
        bound = (3 / (kernel * inputs)) ** 0.5
        self.weight = jax.random.uniform(key, (kernel, inputs, outputs), minval=-bound, maxval=bound)
        self.bias, self.stride = jnp.zeros(outputs) if bias else None, stride

    def __call__(self, x: Float[Array, "*batch points inputs"]) -> Float[Array, "*batch fewer outputs"]:
        y = _product(self._shifted, x, x.shape[-2] // self.stride * self.weight.shape[2])
        return y if self.bias is None else y + self.bias

    def _shifted(self, x: Float[Array, "*batch points inputs"]) -> Float[Array, "*batch fewer outputs"]:
        kernel, inputs, outputs = self.weight.shape
        offsets = [j - kernel // 2 for j in range(kernel)]
        copies = [jnp.roll(x[..., by % self.stride :: self.stride, :], -(by // self.stride), axis=-2) for by in offsets]
        return jnp.concatenate(copies, axis=-1) @ self.weight.reshape(kernel * inputs, outputs)


class TransposedConvolution(eqx.Module):
    """On twice as many points: a convolution of 3 points, of x with a zero after each of its points."""

    weight: Float[Array, "kernel inputs outputs"]
    bias: Float[Array, " outputs"]

    def __init__(self, inputs: int, outputs: int, *, key: PRNGKeyArray):
        bound = inputs**-0.5
        self.weight = jax.random.uniform(key, (3, inputs, outputs), minval=-bound, maxval=bound)
        self.bias = jnp.zeros(outputs)

    def __call__(self, x: Float[Array, "*batch points inputs"]) -> Float[Array, "*batch more outputs"]:
        return _product(self._shifted, x, 2 * x.shape[-2] * self.weight.shape[2]) + self.bias

    def _shifted(self, x: Float[Array, "*batch points inputs"]) -> Float[Array, "*batch more outputs"]:
        left, middle, right = self.weight
        # y_2i = w_0 x_i,  y_(2i + 1) = w_-1 x_i + w_1 x_(i + 1)
        both = jnp.concatenate([middle, jnp.zeros_like(middle)]), jnp.concatenate([left, right])
        y = jnp.concatenate([x, jnp.roll(x, -1, axis=-2)], axis=-1) @ jnp.concatenate(both, axis=1)
        return y.reshape(*x.shape[:-2], 2 * x.shape[-2], -1)


def _product(layer: Callable[[Array], Array], x: Array, size: int) -> Array:
    """layer(x), linear and of so many numbers: as one product with its matrix where that is small and rows are many."""
    inputs = x.shape[-2] * x.shape[-1]
    if inputs * size > DENSE or x.size < inputs**2:
        return layer(x)
    of_units = layer(jnp.eye(inputs).reshape(inputs, *x.shape[-2:]))
    y = x.reshape(-1, inputs) @ of_units.reshape(inputs, size)
    return y.reshape(*x.shape[:-2], *of_units.shape[1:])


class GridNorm(eqx.Module):
    """(x - mean) / sqrt(variance + 1e-5) over the points, each channel scaled and shifted."""

    scale: Float[Array, " channels"]
    shift: Float[Array, " channels"]

    def __init__(self, channels: int):
        self.scale, self.shift = jnp.ones(channels), jnp.zeros(channels)

    def __call__(self, x: Float[Array, "*batch points channels"]) -> Float[Array, "*batch points channels"]:
        return standardise(x, -2) * self.scale + self.shift


class Block(eqx.Module):
    """Two convolutions beside one of a single point."""

    layers: tuple[Convolution, Convolution]
    skip: Convolution
    norms: tuple[GridNorm, ...]
    """after each, and after their sum, or none"""

    def __init__(self, inputs: int, outputs: int, stride: int, *, norm: bool, key: PRNGKeyArray):
        k_first, k_second, k_skip = jax.random.split(key, 3)
        first = Convolution(3, inputs, outputs, stride=stride, key=k_first)
        self.layers = first, Convolution(3, outputs, outputs, key=k_second)
        self.skip = Convolution(1, inputs, outputs, stride=stride, key=k_skip)
        self.norms = tuple(GridNorm(outputs) for _ in range(3)) if norm else ()

    def __call__(self, x: Float[Array, "*batch points inputs"]) -> Float[Array, "*batch fewer outputs"]:
        y = x
        for i, layer in enumerate(self.layers):
            y = jax.nn.silu(layer(y))
            y = self.norms[i](y) if self.norms else y
        y = y + self.skip(x)
        return self.norms[2](y) if self.norms else y


class Memory(NamedTuple):
    """What a roll-out remembers."""

    h: Float[Array, "*batch coarse channels"]
    c: Float[Array, "*batch coarse channels"]


class ConvLSTM(eqx.Module):
    """Of normalised fields, and of actions by their forcing. The units of all points must be the same."""

    field_encoder: tuple[Block, ...]
    forcing_encoder: tuple[Block, ...]
    of_forcing: Convolution
    """to the four gates, their biases with it"""
    of_hidden: Convolution
    expand: tuple[TransposedConvolution, TransposedConvolution]
    smooth: tuple[Convolution, Convolution]
    norms: tuple[GridNorm, ...]
    """of D, or none"""
    points: int = eqx.field(static=True)
    forcing: Forcing = eqx.field(static=True)
    unit: float = eqx.field(static=True)
    """of the forcing"""

    def __init__(self, points: int, forcing: Forcing, unit: float, *, norm: bool = False, key: PRNGKeyArray):
        check_grid(points)
        k_field, k_forcing, k_x, k_h, *keys = jax.random.split(key, 8)

        def blocks(channels: tuple[int, int, int], key: PRNGKeyArray) -> tuple[Block, ...]:
            sizes = zip((1, *channels[:2]), channels, (2, 2, 1), jax.random.split(key, 3), strict=True)
            return tuple(Block(i, o, stride, norm=norm, key=k) for i, o, stride, k in sizes)

        self.field_encoder, self.forcing_encoder = blocks(FIELD, k_field), blocks(FORCED, k_forcing)
        x = Convolution(3, FORCED[-1], 4 * HIDDEN, bias=True, key=k_x)
        self.of_forcing = eqx.tree_at(lambda layer: layer.bias, x, jnp.repeat(jnp.array([0.0, 0, 0, 1]), HIDDEN))
        self.of_hidden = Convolution(3, HIDDEN, 4 * HIDDEN, key=k_h)
        self.expand = TransposedConvolution(HIDDEN, 16, key=keys[0]), TransposedConvolution(16, 8, key=keys[1])
        self.smooth = Convolution(7, 8, 1, bias=True, key=keys[2]), Convolution(5, 1, 1, bias=True, key=keys[3])
        self.norms = (GridNorm(16), GridNorm(8), GridNorm(1)) if norm else ()
        self.points, self.forcing, self.unit = points, forcing, unit

    def encode(self, field: Float[Array, "*batch points"]) -> Float[Array, "*batch coarse channels"]:
        """E."""
        return _through(self.field_encoder, field[..., None])

    def drive(self, action: Float[Array, "*batch act"]) -> Float[Array, "*batch coarse gates"]:
        """What actions add to the four gates."""
        return self.of_forcing(_through(self.forcing_encoder, (self.forcing(action) / self.unit)[..., None]))

    def advance(self, memory: Memory, driven: Float[Array, "*batch coarse gates"]) -> Memory:
        """The LSTM's next h and c, by what `drive` says of the action."""
        i, f, g, o = jnp.split(driven + self.of_hidden(memory.h), 4, axis=-1)
        c = jax.nn.sigmoid(f) * memory.c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return Memory(jax.nn.sigmoid(o) * jnp.tanh(c), c)

    def decode(self, h: Float[Array, "*batch coarse channels"]) -> Float[Array, "*batch points"]:
        """D."""
        for i, layer in enumerate((*self.expand, self.smooth[0])):
            h = jax.nn.silu(layer(h))
            h = self.norms[i](h) if self.norms else h
        return self.smooth[1](h)[..., 0]

    def empty(self, shape: tuple[int, ...]) -> Float[Array, "*shape coarse channels"]:
        """The c of nothing seen."""
        return jnp.zeros((*shape, self.points // STRIDE, HIDDEN))

    def warm_up(
        self,
        fields: Float[Array, "frames *batch points"],
        actions: Float[Array, "frames *batch act"],
        shown: Float[Array, "frames *batch"],
    ) -> Float[Array, "*batch coarse channels"]:
        """c after frames and the actions in them, of which those that are not `shown` (0) are left out."""

        def turn(c: Array, x: tuple[Array, Array, Array]) -> tuple[Array, None]:
            code, driven, seen = x
            return jnp.where(seen[..., None, None] > 0, self.advance(Memory(code, c), driven).c, c), None

        return jax.lax.scan(turn, self.empty(shown.shape[1:]), (self.encode(fields), self.drive(actions), shown))[0]

    def unroll(
        self, fields: Float[Array, "frames *batch points"], actions: Float[Array, "steps *batch act"]
    ) -> Float[Array, "steps *batch points"]:
        """The changes in `steps` steps, of which the first so many see the true field, and the others run free.

        No gradient goes from one stretch of `TRUNCATED` steps into the one before.
        """
        codes, driven = self.encode(fields), self.drive(actions)
        step = jnp.arange(len(driven))
        codes = jnp.pad(codes, ((0, len(step) - len(codes)), *((0, 0),) * (codes.ndim - 1)))

        def turn(memory: Memory, x: tuple[Array, Array, Array]) -> tuple[Memory, Array]:
            code, driven, t = x
            cut = t % TRUNCATED == 0
            h, c = jax.tree.map(lambda part: jnp.where(cut, jax.lax.stop_gradient(part), part), memory)
            memory = self.advance(Memory(jnp.where(t < len(fields), code, h), c), driven)
            return memory, memory.h

        begin = self.empty(fields.shape[1:-1])
        _, h = jax.lax.scan(turn, Memory(begin, begin), (codes, driven, step))
        return self.decode(h)


def _through(blocks: tuple[Block, ...], x: Array) -> Array:
    for block in blocks:
        x = block(x)
    return x


def check_grid(points: int) -> None:
    """Raises `LegatoError` for a grid that cannot be halved twice, or is smaller than a kernel then."""
    if points % STRIDE or points < 3 * STRIDE:
        need = f"a multiple of {STRIDE} points, {3 * STRIDE} or more"
        raise LegatoError(f"`model=convlstm` halves the grid twice: {need}, are needed; there are {points}")
