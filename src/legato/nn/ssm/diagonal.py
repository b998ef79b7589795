"""Layers with a diagonal A: S4D, a system for each channel, and S5, one for all."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from legato.nn.ssm.complex import Complex, both, pair, reset_states
from legato.nn.ssm.discrete import Discrete, Discretisation, convolve, discretise, is_parallel, powers
from legato.nn.ssm.initial import Spectrum, hippo, log_uniform, modes

FEW = 24  # modes up to which `S4D.chunked` is the faster way on a CPU
CHUNK = 50  # steps that a convolution by products takes at once


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
        return both(cb, power)

    def convolve(self, u: Float[Array, "*batch L H"]) -> Float[Array, "*batch L H"]:
        """All outputs at once from zero states. What lies after a step does not touch its output.

        By FFT, or on a CPU, where products of matrices are the faster way for few modes, by `chunked`.
        """
        if not is_parallel(None) and self.c.shape[1] <= FEW:
            return self.chunked(u)
        return convolve(u, self.kernel(u.shape[-2])) + self.d * u

    def chunked(self, u: Float[Array, "*batch L H"], chunk: int = CHUNK) -> Float[Array, "*batch L H"]:
        """The same from products: a triangular one within each chunk of steps, and states from chunk to chunk.

        With Q steps in a chunk, y_j = sum_{i <= j} K_{j-i} u_i + 2 Re(C Abar^{j+1} x) where x, the state before it,
        becomes Abar^Q x + sum_i Abar^{Q-1-i} Bbar u_i.
        """
        *batch, length, channels = u.shape
        chunk = min(chunk, length)
        count, system = -(-length // chunk), self.discrete()
        power = powers(system, chunk + 1)
        upto, after = (jax.tree.map(lambda leaf, at=at: leaf[at], power) for at in (slice(chunk), slice(1, None)))
        kernel = both(system.c * system.b, upto).at[0].add(self.d)  # [Q, H]
        # Row i of the triangle is the kernel moved i to the right: rows of 2Q - 1 cut from one repeated every 2Q.
        row = jnp.concatenate([kernel.T, jnp.zeros((channels, chunk), u.dtype)], axis=1)
        rows = jnp.broadcast_to(row[:, None], (channels, chunk, 2 * chunk)).reshape(channels, -1)
        triangle = rows[:, : chunk * (2 * chunk - 1)].reshape(channels, chunk, -1)[..., :chunk]
        enter = system.b * jax.tree.map(lambda leaf: leaf[::-1], upto)  # Abar^{Q-1-i} Bbar, [Q, H, N/2]
        leave = system.c * after  # C Abar^{j+1}
        into = jnp.concatenate([triangle, enter.re.swapaxes(0, 1), enter.im.swapaxes(0, 1)], axis=-1)
        out = 2 * jnp.concatenate([leave.re, -leave.im], axis=-1).transpose(1, 2, 0)  # [H, N, Q]

        padded = jnp.pad(u.reshape(-1, length, channels), ((0, 0), (0, count * chunk - length), (0, 0)))
        x = padded.reshape(-1, count, chunk, channels).transpose(3, 1, 0, 2)  # [H, chunks, batch, Q]
        made = jnp.einsum("hkbq,hqn->khbn", x, into)
        y, ends = made[..., :chunk], made[..., chunk:]
        last = jax.tree.map(lambda leaf: leaf[-1][:, None], power)  # Abar^Q, [H, 1, N/2]

        def carry(state: Complex, end: Array) -> tuple[Complex, Array]:
            return last * state + Complex(*jnp.split(end, 2, axis=-1)), jnp.concatenate(state, axis=-1)

        nothing = jnp.zeros((*ends.shape[1:-1], system.c.re.shape[-1]), u.dtype)
        _, states = jax.lax.scan(carry, Complex(nothing, nothing), ends)
        y = y + jnp.einsum("khbn,hnq->khbq", states, out)
        return y.transpose(2, 0, 3, 1).reshape(*batch, count * chunk, channels)[..., :length, :]

    def start(self) -> Complex:
        return Complex(jnp.zeros(self.c.shape[:-1]), jnp.zeros(self.c.shape[:-1]))

    @staticmethod
    def step(
        system: Discrete, x: Complex, u: Float[Array, "*batch H"], reset: Bool[Array, "*batch"] | None = None
    ) -> tuple[Complex, Float[Array, "*batch H"]]:
        """One step; `reset` forgets the state before it."""
        x = system.a * reset_states(x, reset, 2) + S4D.drive(system, u)
        return x, S4D.read(system, x, u)

    @staticmethod
    def drive(system: Discrete, u: Float[Array, "*batch H"]) -> Complex:
        """Bbar u `[*batch, H, N/2]`."""
        return system.b.scale(u[..., None])

    @staticmethod
    def read(system: Discrete, x: Complex, u: Float[Array, "*batch H"]) -> Float[Array, "*batch H"]:
        """2 Re(C x) + D u."""
        return both(system.c, x) + system.d * u

    @staticmethod
    def respond(system: Discrete, x: Complex, u: Float[Array, "*batch H"]) -> Float[Array, "*batch H"]:
        """The output of one step alone, 2 Re(C Abar x) + (2 Re(C Bbar) + D) u, without forming the next state."""
        read = system.c * system.a
        y = jnp.einsum("...hn,hn->...h", x.re, 2 * read.re) - jnp.einsum("...hn,hn->...h", x.im, 2 * read.im)
        return y + (both(system.c, system.b) + system.d) * u


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
        x = system.a * reset_states(x, reset, 1) + S5.drive(system, u)
        return x, S5.read(system, x, u)

    @staticmethod
    def drive(system: Discrete, u: Float[Array, "*batch H"]) -> Complex:
        """Bbar u `[*batch, P/2]`."""
        return Complex(u @ system.b.re.T, u @ system.b.im.T)

    @staticmethod
    def read(system: Discrete, x: Complex, u: Float[Array, "*batch H"]) -> Float[Array, "*batch H"]:
        """2 Re(C x) + D u."""
        return 2 * (x.re @ system.c.re.T - x.im @ system.c.im.T) + system.d * u

    @staticmethod
    def respond(system: Discrete, x: Complex, u: Float[Array, "*batch H"]) -> Float[Array, "*batch H"]:
        """The output of one step alone."""
        return S5.step(system, x, u)[1]
