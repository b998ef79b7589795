"""State-space layers: one linear recurrence, seen as a convolution, a scan and a step.

    x'(t) = A x + B u,  y = C x + D u        A diagonal, Re A < 0 by construction
    x_k = Abar x_{k-1} + Bbar u_k,  y_k = 2 Re(C x_k) + D u_k        2: one mode of each conjugate pair is kept

Zero-order hold: Abar = exp(dt A), Bbar = (exp(dt A) - 1) / A. Bilinear: Abar = (1 + dt A / 2) / (1 - dt A / 2),
Bbar = dt / (1 - dt A / 2). Complex numbers are pairs of real arrays throughout: ordinary optimisers are then right, and
a step can be exported. (Gu et al., "S4D", arXiv 2206.11893; Smith et al., "S5", arXiv 2208.04933.)
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Bool, Float, PRNGKeyArray

Discretisation = Literal["zoh", "bilinear"]
Spectrum = Literal["lin", "inv", "legs"]
ComplexArray = npt.NDArray[np.complex128]


class Complex(NamedTuple):
    """re + i im."""

    re: Array
    im: Array

    def __mul__(self, other: Complex) -> Complex:  # type: ignore[override]
        return Complex(self.re * other.re - self.im * other.im, self.re * other.im + self.im * other.re)


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


class S4D(eqx.Module):
    """H independent systems of N/2 modes each, all with the same A and B; C, D and dt are each channel's own.

    Inputs and outputs `[*batch, L, H]`, states `[*batch, H, N/2]`.
    """

    log_decay: Float[Array, " modes"]
    frequency: Float[Array, " modes"]
    log_dt: Float[Array, " H"]
    b: Float[Array, "modes 2"]
    c: Float[Array, "H modes 2"]
    d: Float[Array, " H"]
    kind: Discretisation = eqx.field(static=True)

    def __init__(
        self,
        channels: int,
        order: int,
        *,
        spectrum: Spectrum = "lin",
        discretisation: Discretisation = "zoh",
        dt: tuple[float, float] = (1e-3, 1e-1),
        key: PRNGKeyArray,
    ):
        k_dt, k_c, k_d = jax.random.split(key, 3)
        a, b = modes(order, spectrum)
        self.log_decay = jnp.asarray(np.log(-a.real), jnp.float32)
        self.frequency = jnp.asarray(a.imag, jnp.float32)
        self.log_dt = log_uniform(k_dt, channels, dt)
        self.b = jnp.asarray(np.stack([b.real, b.imag], -1), jnp.float32)
        self.c = jax.random.normal(k_c, (channels, order // 2, 2)) * 0.5**0.5
        self.d = jax.random.normal(k_d, (channels,))
        self.kind = discretisation

    def discrete(self) -> Discrete:
        dt = jnp.exp(self.log_dt)[:, None]
        decay, angle, hold = discretise(self.log_decay, self.frequency, dt, self.kind)
        return Discrete(decay, angle, hold * pair(self.b), pair(self.c), self.d)

    def kernel(self, length: int) -> Float[Array, "length H"]:
        """K_l = 2 Re sum_n C_n Bbar_n Abar_n^l, the response to a single 1."""
        system = self.discrete()
        cb = system.c * system.b
        power = powers(system, length)
        return 2 * jnp.sum(cb.re * power.re - cb.im * power.im, axis=-1)

    def convolve(self, u: Float[Array, "*batch L H"]) -> Float[Array, "*batch L H"]:
        """All outputs at once from zero states, by FFT. What lies after a step does not touch its output."""
        length = u.shape[-2]
        spectrum = jnp.fft.rfft(self.kernel(length), 2 * length, axis=-2)  # twice as long, so that nothing wraps around
        y = jnp.fft.irfft(jnp.fft.rfft(u, 2 * length, axis=-2) * spectrum, 2 * length, axis=-2)
        return y[..., :length, :] + self.d * u

    def start(self) -> Complex:
        return Complex(jnp.zeros(self.c.shape[:-1]), jnp.zeros(self.c.shape[:-1]))

    @staticmethod
    def step(
        system: Discrete, x: Complex, u: Float[Array, "*batch H"], reset: Bool[Array, "*batch"] | None = None
    ) -> tuple[Complex, Float[Array, "*batch H"]]:
        """One step; `reset` forgets the state before it."""
        x = system.a * _kept(x, reset, 2)
        x = Complex(x.re + system.b.re * u[..., None], x.im + system.b.im * u[..., None])
        return x, 2 * jnp.sum(system.c.re * x.re - system.c.im * x.im, axis=-1) + system.d * u


class S5(eqx.Module):
    """One system of P/2 modes that all H channels drive and read.

    Inputs and outputs `[*batch, L, H]`, states `[*batch, P/2]`.
    """

    log_decay: Float[Array, " modes"]
    frequency: Float[Array, " modes"]
    log_dt: Float[Array, " modes"]
    b: Float[Array, "modes H 2"]
    c: Float[Array, "H modes 2"]
    d: Float[Array, " H"]
    kind: Discretisation = eqx.field(static=True)

    def __init__(
        self,
        channels: int,
        order: int,
        *,
        discretisation: Discretisation = "zoh",
        dt: tuple[float, float] = (1e-3, 1e-1),
        key: PRNGKeyArray,
    ):
        k_dt, k_b, k_c, k_d = jax.random.split(key, 4)
        a, _, v = hippo(order)
        back = jnp.asarray(v.conj().T)
        b = back @ jax.random.normal(k_b, (order, channels)) / channels**0.5
        c_re, c_im = jax.random.normal(k_c, (2, channels, order)) * (0.5 / order) ** 0.5
        c = (c_re + 1j * c_im) @ jnp.asarray(v)
        self.log_decay = jnp.asarray(np.log(-a.real), jnp.float32)
        self.frequency = jnp.asarray(a.imag, jnp.float32)
        self.log_dt = log_uniform(k_dt, order // 2, dt)
        self.b = jnp.stack([b.real, b.imag], -1)
        self.c = jnp.stack([c.real, c.imag], -1)
        self.d = jax.random.normal(k_d, (channels,))
        self.kind = discretisation

    def discrete(self) -> Discrete:
        decay, angle, hold = discretise(self.log_decay, self.frequency, jnp.exp(self.log_dt), self.kind)
        b = pair(self.b)
        hold = Complex(hold.re[:, None], hold.im[:, None])
        return Discrete(decay, angle, hold * b, pair(self.c), self.d)

    def convolve(self, u: Float[Array, "*batch L H"]) -> Float[Array, "*batch L H"]:
        """All outputs at once from zero states, by FFT over each mode."""
        length, system = u.shape[-2], self.discrete()
        power = powers(system, length)
        response = jnp.fft.fft(power.re + 1j * power.im, 2 * length, axis=-2)
        driven = u @ system.b.re.T + 1j * (u @ system.b.im.T)
        x = jnp.fft.ifft(jnp.fft.fft(driven, 2 * length, axis=-2) * response, 2 * length, axis=-2)[..., :length, :]
        return 2 * (x.real @ system.c.re.T - x.imag @ system.c.im.T) + self.d * u

    def start(self) -> Complex:
        return Complex(jnp.zeros(self.log_dt.shape), jnp.zeros(self.log_dt.shape))

    @staticmethod
    def step(
        system: Discrete, x: Complex, u: Float[Array, "*batch H"], reset: Bool[Array, "*batch"] | None = None
    ) -> tuple[Complex, Float[Array, "*batch H"]]:
        """One step; `reset` forgets the state before it."""
        x = system.a * _kept(x, reset, 1)
        x = Complex(x.re + u @ system.b.re.T, x.im + u @ system.b.im.T)
        return x, 2 * (x.re @ system.c.re.T - x.im @ system.c.im.T) + system.d * u


def scan(
    layer: S4D | S5,
    u: Float[Array, "L *batch H"],
    x: Complex | None = None,
    reset: Bool[Array, "L *batch"] | None = None,
) -> tuple[Complex, Float[Array, "L *batch H"]]:
    """The last state and all outputs, step after step. Time comes first; `reset` marks steps that forget the state."""
    system, batch = layer.discrete(), u.shape[1:-1]
    begin = jax.tree.map(lambda leaf: jnp.zeros((*batch, *leaf.shape), u.dtype), layer.start()) if x is None else x
    reset = jnp.zeros((len(u), *batch), bool) if reset is None else reset
    return jax.lax.scan(lambda x, at: layer.step(system, x, *at), begin, (u, reset))


def powers(system: Discrete, length: int) -> Complex:
    """Abar^l for l = 0 ... length - 1, along a leading axis: computed each on its own, so that errors do not add up."""
    exponent = jnp.arange(length, dtype=system.decay.dtype).reshape(-1, *(1,) * system.decay.ndim)
    size = jnp.exp(exponent * system.decay)
    return Complex(size * jnp.cos(exponent * system.angle), size * jnp.sin(exponent * system.angle))


def pair(array: Float[Array, "*shape 2"]) -> Complex:
    return Complex(array[..., 0], array[..., 1])


def _kept(x: Complex, reset: Array | None, axes: int) -> Complex:
    if reset is None:
        return x
    kept = ~reset.reshape(*reset.shape, *(1,) * axes)
    return Complex(jnp.where(kept, x.re, 0), jnp.where(kept, x.im, 0))


# --- where the modes begin ---


def log_uniform(key: PRNGKeyArray, count: int, dt: tuple[float, float]) -> Float[Array, " count"]:
    """log dt, uniform between the logarithms of the bounds."""
    return jax.random.uniform(key, (count,), minval=np.log(dt[0]), maxval=np.log(dt[1]))


def hippo(order: int) -> tuple[ComplexArray, ComplexArray, ComplexArray]:
    """(A, B, V) of HiPPO-LegS without its low-rank part, diagonalised: the modes of positive frequency, B = V* B_hippo.

    A_nk = -sqrt((2n + 1)(2k + 1)) below the diagonal and -(n + 1) on it; with P_n = sqrt(n + 1/2), A + P P^T is -1/2
    plus a skew matrix, whose eigenvectors are V.
    """
    n = np.arange(order)
    root = np.sqrt(2 * n + 1)
    a = -np.tril(np.outer(root, root), -1) - np.diag(n + 1)
    p = np.sqrt(n + 0.5)
    skew = a + np.outer(p, p) + 0.5 * np.eye(order)
    frequency, v = np.linalg.eigh(-1j * skew)
    positive = np.argsort(frequency)[order // 2 :]
    frequency, v = frequency[positive], v[:, positive]
    return -0.5 + 1j * frequency, v.conj().T @ root, v


def modes(order: int, spectrum: Spectrum) -> tuple[ComplexArray, ComplexArray]:
    """(A, B) of S4D's N/2 = order/2 modes: -1/2 + i pi n ("lin"), N/pi (N/(2n + 1) - 1) ("inv"), HiPPO's ("legs")."""
    n = np.arange(order // 2)
    if spectrum == "legs":
        a, b, _ = hippo(order)
        return a, b / 2
    frequency = np.pi * n if spectrum == "lin" else order / np.pi * (order / (2 * n + 1) - 1)
    return np.asarray(-0.5 + 1j * frequency, np.complex128), np.ones(order // 2, np.complex128)
