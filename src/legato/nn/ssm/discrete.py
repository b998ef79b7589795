"""Systems in discrete time: one step of the modes, their powers, and the convolution with a response."""

from __future__ import annotations

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from legato.nn.ssm.complex import Complex

Discretisation = Literal["zoh", "bilinear"]


class Discrete(eqx.Module):
    """What stepping needs, computed once from a layer's parameters: Abar, Bbar, C, D.

    Abar is kept as exp(decay + i angle): its l-th power is then exp(l decay) (cos l angle + i sin l angle).
    """

    decay: Float[Array, "*modes"]
    angle: Float[Array, "*modes"]
    b: Complex
    c: Complex
    d: Float[Array, " H"]

    @property
    def a(self) -> Complex:
        size = jnp.exp(self.decay)
        return Complex(size * jnp.cos(self.angle), size * jnp.sin(self.angle))


def discretise(
    log_decay: Float[Array, "*#modes"],
    frequency: Float[Array, "*#modes"],
    dt: Float[Array, "*#modes"],
    kind: Discretisation,
) -> tuple[Array, Array, Complex]:
    """(decay, angle, Bbar / B) of the modes A = -exp(log_decay) + i frequency over steps of dt."""
    re, im = -jnp.exp(log_decay) * dt, frequency * dt  # z = dt A
    if kind == "bilinear":
        over, under = Complex(1 + re / 2, im / 2), Complex(1 - re / 2, -im / 2)
        norm = under.re**2 + under.im**2
        decay = 0.5 * (jnp.log(over.re**2 + over.im**2) - jnp.log(norm))
        angle = jnp.arctan2(over.im, over.re) - jnp.arctan2(under.im, under.re)
        return decay, angle, Complex(dt * under.re / norm, -dt * under.im / norm)
    # exp(z) - 1 without cancellation, divided by z: z is never 0, because its real part is negative.
    e = Complex(jnp.expm1(re) * jnp.cos(im) - 2 * jnp.sin(im / 2) ** 2, jnp.exp(re) * jnp.sin(im))
    norm = re**2 + im**2
    hold = e * Complex(re / norm, -im / norm)
    return re, im, Complex(dt * hold.re, dt * hold.im)


def powers(system: Discrete, length: int) -> Complex:
    """Abar^l for l = 0 ... length - 1, along a leading axis: computed each on its own, so that errors do not add up."""
    exponent = jnp.arange(length, dtype=system.decay.dtype).reshape(-1, *(1,) * system.decay.ndim)
    size = jnp.exp(exponent * system.decay)
    return Complex(size * jnp.cos(exponent * system.angle), size * jnp.sin(exponent * system.angle))


def convolve(u: Float[Array, "*batch L H"], kernel: Float[Array, "L H"]) -> Float[Array, "*batch L H"]:
    """The causal convolution over time, by FFT."""
    length = u.shape[-2]
    spectrum = jnp.fft.rfft(kernel, 2 * length, axis=-2)  # twice as long, so that nothing wraps around
    return jnp.fft.irfft(jnp.fft.rfft(u, 2 * length, axis=-2) * spectrum, 2 * length, axis=-2)[..., :length, :]


def is_parallel(asked: bool | None) -> bool:
    """What was asked for; by default, whether the backend is not a CPU."""
    return jax.default_backend() != "cpu" if asked is None else asked
