"""Layers whose A is diagonal less rank one: S4."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from legato.errors import LegatoError
from legato.nn.ssm.complex import Complex, both, pair, reset_states
from legato.nn.ssm.discrete import Discretisation, convolve, discretise, is_parallel
from legato.nn.ssm.initial import hippo, log_uniform


class LowRank(eqx.Module):
    """What stepping S4 needs: Abar = diag(a) - q r^T over all N modes, Bbar, C, D."""

    a: Complex
    q: Complex
    r: Complex
    b: Complex
    c: Complex
    d: Float[Array, " H"]

    def advance(self, x: Complex) -> Complex:
        """Abar x, in one sum and a few products for each mode `[*batch, H, N/2]`."""
        return self.a * x + self.q.scale(-both(self.r, x)[..., None])


class S4(eqx.Module):
    """H independent systems with the whole of HiPPO-LegS, A = V (diag(Lambda) - P P*) V*: A, B, P shared, C, D, dt not.

    Inputs and outputs `[*batch, L, H]`, states `[*batch, H, N/2]`. A + A* = 2 Re Lambda - 2 P P* < 0, so that Abar
    makes every state shorter. C itself is learnt, not C (1 - Abar^L): the parameters know no length.
    """

    log_decay: Float[Array, " modes"]
    frequency: Float[Array, " modes"]
    log_dt: Float[Array, " H"]
    b: Float[Array, "modes 2"]
    p: Float[Array, "modes 2"]
    c: Float[Array, "H modes 2"]
    d: Float[Array, " H"]

    def __init__(
        self,
        channels: int,
        order: int,
        *,
        discretisation: Discretisation = "bilinear",
        dt: tuple[float, float] = (1e-3, 1e-1),
        key: PRNGKeyArray,
    ):
        if discretisation != "bilinear":
            raise LegatoError(f"discretisation = {discretisation!r}: S4 has only 'bilinear', S4D and S5 have both")
        if order % 2:
            raise LegatoError(f"order = {order} is odd: the modes of S4 come in pairs, give an even number")
        k_dt, k_c, k_d = jax.random.split(key, 3)
        a, b, _ = hippo(order)
        p = b / 2**0.5  # V* sqrt(n + 1/2), where B = V* sqrt(2n + 1)
        self.log_decay = jnp.asarray(np.log(-a.real), jnp.float32)
        self.frequency = jnp.asarray(a.imag, jnp.float32)
        self.log_dt = log_uniform(k_dt, channels, dt)
        self.b = jnp.asarray(np.stack([b.real, b.imag], -1), jnp.float32)
        self.p = jnp.asarray(np.stack([p.real, p.imag], -1), jnp.float32)
        self.c = jax.random.normal(k_c, (channels, order // 2, 2)) * 0.5**0.5
        self.d = jax.random.normal(k_d, (channels,))

    def discrete(self) -> LowRank:
        """By Woodbury's identity, with M = (1 - dt Lambda / 2)^-1 and s = dt/2 P* M P, which is real:

        (1 - dt A / 2)^-1 = M - dt/2 M P P* M / (1 + s),  Abar = 2 (1 - dt A / 2)^-1 - 1.
        """
        dt = jnp.exp(self.log_dt)[:, None]
        *_, hold = discretise(self.log_decay, self.frequency, dt, "bilinear")  # dt M
        b, p, m = pair(self.b), pair(self.p), hold.scale(1 / dt)
        s = jnp.sum((p.re**2 + p.im**2) * hold.re, axis=-1, keepdims=True)
        q = (hold * p).scale(1 / (1 + s))
        r = Complex(p.re, -p.im) * m
        bbar = hold * b + q.scale(-dt / 2 * both(r, b)[..., None])
        return LowRank(Complex(2 * m.re - 1, 2 * m.im), q, r, bbar, pair(self.c), self.d)

    def kernel(self, length: int, parallel: bool | None = None) -> Float[Array, "length H"]:
        """K_l = C Abar^l Bbar, the response to a single 1: L steps without a batch or, in parallel, log2(L) products.

        Not by the generating function, which needs C (1 - Abar^L) and so the same powers. As Abar makes every state
        shorter, the roundings of steps and products do not grow. `parallel` None: only where the backend is not a CPU.
        """
        system = self.discrete()
        if not is_parallel(parallel):
            return jax.lax.scan(lambda x, _: (system.advance(x), both(system.c, x)), system.b, length=length)[1]
        # K_{iT + j} = (C Abar^{iT}) (Abar^j Bbar): first the columns double, then the rows, as Abar is squared; all
        # real, [re | im], and at full precision, because a GPU may else keep ten bits of each factor.
        n = self.frequency.size
        basis = jnp.eye(2 * n, dtype=system.b.re.dtype)[:, None]
        image = system.advance(Complex(basis[..., :n], basis[..., n:]))
        power = jnp.moveaxis(jnp.concatenate(image, axis=-1), 0, -1)  # [H, 2n, 2n]
        columns = jnp.concatenate(system.b, axis=-1)[:, :, None]
        rows = 2 * jnp.concatenate([system.c.re, -system.c.im], axis=-1)[:, None]
        while (count := rows.shape[1] * columns.shape[2]) < length:
            if columns.shape[2] ** 2 < length:
                columns = jnp.concatenate([columns, _exactly(power, columns)], axis=2)
            else:
                rows = jnp.concatenate([rows, _exactly(rows, power)], axis=1)
            power = _exactly(power, power) if 2 * count < length else power
        return _exactly(rows, columns).reshape(len(rows), -1)[:, :length].T

    def convolve(self, u: Float[Array, "*batch L H"]) -> Float[Array, "*batch L H"]:
        """All outputs at once from zero states, by FFT. What lies after a step does not touch its output."""
        return convolve(u, self.kernel(u.shape[-2])) + self.d * u

    def start(self) -> Complex:
        return Complex(jnp.zeros(self.c.shape[:-1]), jnp.zeros(self.c.shape[:-1]))

    @staticmethod
    def step(
        system: LowRank, x: Complex, u: Float[Array, "*batch H"], reset: Bool[Array, "*batch"] | None = None
    ) -> tuple[Complex, Float[Array, "*batch H"]]:
        """One step; `reset` forgets the state before it."""
        x = system.advance(reset_states(x, reset, 2)) + system.b.scale(u[..., None])
        return x, both(system.c, x) + system.d * u

    @staticmethod
    def respond(system: LowRank, x: Complex, u: Float[Array, "*batch H"]) -> Float[Array, "*batch H"]:
        """The output of one step alone."""
        return S4.step(system, x, u)[1]


def _exactly(x: Array, y: Array) -> Array:
    return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)
