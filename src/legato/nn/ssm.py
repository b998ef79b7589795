"""State-space layers: one linear recurrence, seen as a convolution, a scan and a step.

    x'(t) = A x + B u,  y = C x + D u        A diagonal (S4D, S5) or diagonal less rank one (S4), stable by construction
    x_k = Abar x_{k-1} + Bbar u_k,  y_k = 2 Re(C x_k) + D u_k        2: one mode of each conjugate pair is kept

Zero-order hold: Abar = exp(dt A), Bbar = (exp(dt A) - 1) / A. Bilinear: Abar = (1 + dt A / 2) / (1 - dt A / 2),
Bbar = dt / (1 - dt A / 2). Complex numbers are pairs of real arrays throughout: ordinary optimisers are then right, and
a step can be exported. (Gu et al., "S4", arXiv 2111.00396; "S4D", 2206.11893; Smith et al., "S5", 2208.04933.)
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from legato.errors import LegatoError

Discretisation = Literal["zoh", "bilinear"]
Spectrum = Literal["lin", "inv", "legs"]
FEW = 24  # modes up to which that way is the faster on a CPU
CHUNK = 50  # steps that a convolution by products takes at once
ComplexArray = npt.NDArray[np.complex128]


class Complex(NamedTuple):
    """re + i im."""

    re: Array
    im: Array

    def __mul__(self, other: Complex) -> Complex:  # type: ignore[override]
        return Complex(self.re * other.re - self.im * other.im, self.re * other.im + self.im * other.re)

    def __add__(self, other: Complex) -> Complex:  # type: ignore[override]
        return Complex(self.re + other.re, self.im + other.im)

    def scaled(self, by: Array | float) -> Complex:
        return Complex(self.re * by, self.im * by)


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
        return both(cb, power)

    def convolve(self, u: Float[Array, "*batch L H"]) -> Float[Array, "*batch L H"]:
        """All outputs at once from zero states. What lies after a step does not touch its output.

        By FFT, or on a CPU, where products of matrices are the faster way for few modes, by `chunked`.
        """
        if not _parallel(None) and self.c.shape[1] <= FEW:
            return self.chunked(u)
        return convolved(u, self.kernel(u.shape[-2])) + self.d * u

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
        x = system.a * _kept(x, reset, 2) + S4D.drive(system, u)
        return x, S4D.read(system, x, u)

    @staticmethod
    def drive(system: Discrete, u: Float[Array, "*batch H"]) -> Complex:
        """Bbar u `[*batch, H, N/2]`."""
        return system.b.scaled(u[..., None])

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
        x = system.a * _kept(x, reset, 1) + S5.drive(system, u)
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
        return self.a * x + self.q.scaled(-both(self.r, x)[..., None])


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
        b, p, m = pair(self.b), pair(self.p), hold.scaled(1 / dt)
        s = jnp.sum((p.re**2 + p.im**2) * hold.re, axis=-1, keepdims=True)
        q = (hold * p).scaled(1 / (1 + s))
        r = Complex(p.re, -p.im) * m
        bbar = hold * b + q.scaled(-dt / 2 * both(r, b)[..., None])
        return LowRank(Complex(2 * m.re - 1, 2 * m.im), q, r, bbar, pair(self.c), self.d)

    def kernel(self, length: int, parallel: bool | None = None) -> Float[Array, "length H"]:
        """K_l = C Abar^l Bbar, the response to a single 1: L steps without a batch or, in parallel, log2(L) products.

        Not by the generating function, which needs C (1 - Abar^L) and so the same powers. As Abar makes every state
        shorter, the roundings of steps and products do not grow. `parallel` None: only where the backend is not a CPU.
        """
        system = self.discrete()
        if not _parallel(parallel):
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
        return convolved(u, self.kernel(u.shape[-2])) + self.d * u

    def start(self) -> Complex:
        return Complex(jnp.zeros(self.c.shape[:-1]), jnp.zeros(self.c.shape[:-1]))

    @staticmethod
    def step(
        system: LowRank, x: Complex, u: Float[Array, "*batch H"], reset: Bool[Array, "*batch"] | None = None
    ) -> tuple[Complex, Float[Array, "*batch H"]]:
        """One step; `reset` forgets the state before it."""
        x = system.advance(_kept(x, reset, 2)) + system.b.scaled(u[..., None])
        return x, both(system.c, x) + system.d * u

    @staticmethod
    def respond(system: LowRank, x: Complex, u: Float[Array, "*batch H"]) -> Float[Array, "*batch H"]:
        """The output of one step alone."""
        return S4.step(system, x, u)[1]


def scan(
    layer: S4D | S5 | S4,
    u: Float[Array, "L *batch H"],
    x: Complex | None = None,
    reset: Bool[Array, "L *batch"] | None = None,
    parallel: bool | None = None,
) -> tuple[Complex, Float[Array, "L *batch H"]]:
    """The last state and all outputs, step after step. Time comes first; `reset` marks steps that forget the state.

    `parallel` computes the same in log2(L) turns, with more work and all states in memory: None means only where the
    backend is not a CPU, and never for S4. Raises `LegatoError` for S4 in parallel: products of its Abar are dense.
    """
    if parallel and isinstance(layer, S4):
        raise LegatoError("parallel = True asks for a layer with a diagonal A, and S4 has none: scan it with False")
    batch = u.shape[1:-1]
    begin = jax.tree.map(lambda leaf: jnp.zeros((*batch, *leaf.shape), u.dtype), layer.start()) if x is None else x
    if not isinstance(layer, S4) and _parallel(parallel):
        return _associative(layer, u, begin, reset)
    reset = jnp.zeros((len(u), *batch), bool) if reset is None else reset
    system: Any = layer.discrete()
    return jax.lax.scan(lambda x, at: layer.step(system, x, *at), begin, (u, reset))


def _associative(layer: S4D | S5, u: Array, x: Complex, reset: Array | None) -> tuple[Complex, Array]:
    """x_k = a_k x_{k-1} + b_k as pairs (a_k, b_k) and their composition; a_k = 0 where the state is forgotten."""
    system, batch = layer.discrete(), u.shape[1:-1]
    b = layer.drive(system, u)
    a = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(u), *(1,) * len(batch), *leaf.shape)), system.a)
    a = _kept(a, reset, system.a.re.ndim)
    first = Complex(a.re[0], a.im[0]) * x
    b = Complex(b.re.at[0].add(first.re), b.im.at[0].add(first.im))
    _, states = jax.lax.associative_scan(lambda i, j: (j[0] * i[0], j[0] * i[1] + j[1]), (a, b))
    return jax.tree.map(lambda leaf: leaf[-1], states), layer.read(system, states, u)


def _parallel(asked: bool | None) -> bool:
    return jax.default_backend() != "cpu" if asked is None else asked


def groups(tree: Any) -> Any:
    """What each array of a network is to an optimiser: "core" (A, B, P, dt) and "readout" (C, D) of a layer, or "rest".

    For `optax.multi_transform(transforms, groups)`: the function, not its result, because optax would call a network of
    labels that has a `__call__`. Whatever is not an array becomes None, as `eqx.filter(tree, eqx.is_array)` leaves it.
    """

    def label(path: tuple[Any, ...], leaf: Any) -> str | None:
        if not eqx.is_array(leaf):
            return None
        return "readout" if path[0].name in ("c", "d") else "core"

    def of(node: Any) -> Any:
        if isinstance(node, S4D | S5 | S4):
            return jax.tree_util.tree_map_with_path(label, node)
        return "rest" if eqx.is_array(node) else None

    return jax.tree.map(of, tree, is_leaf=lambda node: isinstance(node, S4D | S5 | S4))


def both(x: Complex, y: Complex) -> Array:
    """2 Re sum_n x_n y_n over the last axis: the sum over both modes of each conjugate pair."""
    return 2 * jnp.sum(x.re * y.re - x.im * y.im, axis=-1)


def convolved(u: Float[Array, "*batch L H"], kernel: Float[Array, "L H"]) -> Float[Array, "*batch L H"]:
    """The causal convolution over time, by FFT."""
    length = u.shape[-2]
    spectrum = jnp.fft.rfft(kernel, 2 * length, axis=-2)  # twice as long, so that nothing wraps around
    return jnp.fft.irfft(jnp.fft.rfft(u, 2 * length, axis=-2) * spectrum, 2 * length, axis=-2)[..., :length, :]


def powers(system: Discrete, length: int) -> Complex:
    """Abar^l for l = 0 ... length - 1, along a leading axis: computed each on its own, so that errors do not add up."""
    exponent = jnp.arange(length, dtype=system.decay.dtype).reshape(-1, *(1,) * system.decay.ndim)
    size = jnp.exp(exponent * system.decay)
    return Complex(size * jnp.cos(exponent * system.angle), size * jnp.sin(exponent * system.angle))


def pair(array: Float[Array, "*shape 2"]) -> Complex:
    return Complex(array[..., 0], array[..., 1])


def _exactly(x: Array, y: Array) -> Array:
    return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)


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
