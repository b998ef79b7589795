"""Networks of a field on a periodic grid that commute with its shifts: convolutions, computed in Fourier space.

    y = F^-1 (K_k F x)_k + b,    K = F of the kernel,   for every pair of channels
    f(u, phi) = conv(SiLU(conv(SiLU(conv(u, phi))))) + A u + B phi

A convolution on a circle is a product with a circulant matrix, which the Fourier basis makes diagonal. So a kernel as
long as the grid costs no more than a short one, and A and B, the linear part, are as long. With 16 channels on 64
points a gradient takes 7.5 ms of one core this way, 10 ms with shifted copies and a matrix product, and 15 ms as XLA's
convolution of stacked members (`benchmarks/surrogates.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from legato.errors import LegatoError

KERNEL = 7
"""points that a short convolution reads"""

Forcing = Callable[[Any], Any]
"""of actions `[..., act]` in [-1, 1]: what they add to du/dt at the points, `[..., points]`"""


class PeriodicConvolution(eqx.Module):
    """y_i = b + sum_j w_j x_(i + j), j counted from the kernel's middle, on a circle: `[..., points, channels]`.

    Weights are normal with variance 1 / (kernel * inputs) times `gain` squared, biases 0.
    """

    weight: Float[Array, "kernel inputs outputs"]
    bias: Float[Array, " outputs"]

    def __init__(self, kernel: int, inputs: int, outputs: int, *, gain: float = 1.0, key: PRNGKeyArray):
        self.weight = gain * (kernel * inputs) ** -0.5 * jax.random.normal(key, (kernel, inputs, outputs))
        self.bias = jnp.zeros(outputs)

    def __call__(self, x: Float[Array, "*batch points inputs"]) -> Float[Array, "*batch points outputs"]:
        points, kernel = x.shape[-2], len(self.weight)
        laid = jnp.roll(jnp.pad(self.weight, ((0, points - kernel), (0, 0), (0, 0))), -(kernel // 2), axis=0)
        modes = jnp.conj(jnp.fft.rfft(laid, axis=0))  # conjugate: a correlation, as convolutions of networks are
        y = jnp.einsum("...kc,kcd->...kd", jnp.fft.rfft(x, axis=-2), modes)
        return jnp.fft.irfft(y, points, axis=-2) + self.bias


class CirculantNetwork(eqx.Module):
    """Of a field and an action `[points + act]`: the mean of each point's change and its raw log-variance `[2 points]`.

    Everything is in normalised units but the action, which becomes its forcing. The units of all points must be the
    same: then a shift of field and forcing shifts what is predicted.
    """

    layers: tuple[PeriodicConvolution, ...]
    linear: PeriodicConvolution
    """A and B, kernels as long as the grid"""
    points: int = eqx.field(static=True)
    forcing: Forcing = eqx.field(static=True)
    unit: float = eqx.field(static=True)
    """of the forcing"""

    def __init__(
        self,
        points: int,
        forcing: Forcing,
        unit: float,
        channels: Sequence[int] = (16, 16),
        *,
        kernel: int = KERNEL,
        key: PRNGKeyArray,
    ):
        if points < kernel:
            raise LegatoError(f"a periodic field needs {kernel} points or more; {points} were given")
        *keys, k_last = jax.random.split(key, len(channels) + 1)
        sizes = (2, *channels)
        hidden = [PeriodicConvolution(kernel, i, o, key=k) for i, o, k in zip(sizes[:-1], channels, keys, strict=True)]
        # Small at first: what is not linear is a correction.
        last = PeriodicConvolution(kernel, sizes[-1], 2, gain=0.1, key=k_last)
        self.layers = (*hidden, last)
        empty = PeriodicConvolution(points, 2, 1, key=k_last)
        self.linear = eqx.tree_at(lambda layer: layer.weight, empty, jnp.zeros_like(empty.weight))
        self.points, self.forcing, self.unit = points, forcing, unit

    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        return self.predict(x[..., : self.points], self.forcing(x[..., self.points :]))

    def predict(
        self, field: Float[Array, "*batch points"], forcing: Float[Array, "*batch points"]
    ) -> Float[Array, "*batch outputs"]:
        """By the forcing itself, in the environment's units."""
        both = jnp.stack([field, forcing / self.unit], axis=-1)
        h = both
        for layer in self.layers[:-1]:
            h = jax.nn.silu(layer(h))
        y = self.layers[-1](h)
        return jnp.concatenate([y[..., 0] + self.linear(both)[..., 0], y[..., 1]], axis=-1)
