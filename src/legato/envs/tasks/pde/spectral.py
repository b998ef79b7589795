"""Periodic equations u_t = l(d/dx) u - (u^2)_x / 2 + f in one dimension: pseudo-spectral in space, ETDRK4 in time.

Everything is a pure function of arrays `[..., n]` and takes the array module first, `numpy` or `jax.numpy`, so that one
environment, a NumPy batch and `jax.vmap` compute the same.

Sources: Cox & Matthews 2002 (Exponential time differencing for stiff systems), equations 26-29, for the scheme; Kassam
& Trefethen 2005 (Fourth-order time-stepping for stiff PDEs), section 3, for its coefficients as means over a contour.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Complex, Float

CONTOUR = 32  # points of the half circle over which a coefficient is averaged

Array = Any
"""of the array module: NumPy's or JAX's"""


class Plant(NamedTuple):
    """An equation on a grid, what acts on it, and a scheme for its solution.

    A field is kept as its Fourier coefficients below a third of the grid's N, `numpy.fft.rfft` without the others: the
    square of such a field has no aliases among them (the rule of 2/3), and the scheme needs no mask.
    """

    length: float
    """of the periodic domain [0, L)"""
    points: int
    """of the grid, N, at x_j = j L / N"""
    substeps: int
    """of the scheme in a control step"""
    dt: float
    """of such a sub-step"""
    low: float
    """amplitude of a jet at action -1"""
    high: float
    """and at action 1"""
    growth: Float[np.ndarray, " modes"]
    """l(i k): how fast a mode of the linear equation grows"""
    jets: Float[np.ndarray, "jets points"]
    """the shapes g_i(x) of the forcing f = sum of a_i g_i"""
    forcing: Complex[np.ndarray, "jets modes"]
    """their modes"""
    gradient: Complex[np.ndarray, " modes"]
    """-i k / 2, which makes -(u^2)_x / 2 of the modes of u^2"""
    weights: Float[np.ndarray, "modes three"]
    """squared moduli of modes @ weights = (<u^2>, <u_x^2>, <u_xx^2>), by Parseval"""
    whole: Float[np.ndarray, " modes"]
    """exp(h l), of a sub-step h"""
    half: Float[np.ndarray, " modes"]
    """exp(h l / 2)"""
    stage: Float[np.ndarray, " modes"]
    """Q = h phi_1(h l / 2) / 2, of the stages within a sub-step"""
    first: Float[np.ndarray, " modes"]
    """of N(v_n) in the sum"""
    middle: Float[np.ndarray, " modes"]
    """of N(a_n) + N(b_n), the factor 2 included"""
    last: Float[np.ndarray, " modes"]
    """of N(c_n)"""

    @property
    def interval(self) -> float:
        """Duration of a control step."""
        return self.dt * self.substeps

    @property
    def modes(self) -> int:
        """Modes that are kept, the mean among them."""
        return (self.points - 1) // 3 + 1


def plant(
    length: float,
    points: int,
    linear: Callable[[np.ndarray], np.ndarray],
    jets: Float[np.ndarray, "jets points"],
    low: float,
    high: float,
    dt: float,
    substeps: int,
) -> Plant:
    """A plant whose mode of wave number k grows at the rate `linear(k)` without jets and the quadratic term."""
    modes = (points - 1) // 3 + 1
    k = 2 * np.pi / length * np.arange(modes)
    growth = linear(k)
    twice = np.where(k > 0, 2.0, 1.0) / points**2  # a mode stands for its conjugate too
    weights = twice[:, None] * k[:, None] ** np.array([0, 2, 4])
    shapes = np.fft.rfft(jets)[:, :modes]
    return Plant(
        length, points, substeps, dt, low, high, growth, jets, shapes, -0.5j * k, weights, *coefficients(growth, dt)
    )


def coefficients(growth: Float[np.ndarray, " modes"], h: float) -> tuple[Float[np.ndarray, " modes"], ...]:
    """exp(h l), exp(h l / 2) and the four weights of ETDRK4 for a step h.

    As written the weights lose all digits where h l is near 0. They are analytic there, so each is its mean over a
    circle of radius 1 around h l; of a real function the upper half is enough.
    """
    circle = np.exp(1j * np.pi * (np.arange(1, CONTOUR + 1) - 0.5) / CONTOUR)
    z = h * growth[:, None] + circle

    def mean(values: np.ndarray) -> np.ndarray:
        return h * values.mean(axis=1).real

    return (
        np.exp(h * growth),
        np.exp(h * growth / 2),
        mean((np.exp(z / 2) - 1) / z),
        mean((-4 - z + np.exp(z) * (4 - 3 * z + z**2)) / z**3),
        2 * mean((2 + z + np.exp(z) * (z - 2)) / z**3),
        mean((-4 - 3 * z - z**2 + np.exp(z) * (4 - z)) / z**3),
    )


def to_modes(xp: Any, plant: Plant, field: Array) -> Array:
    """The kept modes `[..., modes]` of a field `[..., points]`."""
    return xp.fft.rfft(field)[..., : plant.modes]


def to_field(xp: Any, plant: Plant, modes: Array) -> Array:
    """The field `[..., points]` of modes `[..., modes]`."""
    return xp.fft.irfft(modes, plant.points)


def force(plant: Plant, action: Array) -> Array:
    """The forcing's modes `[..., modes]` for actions `[..., jets]` in [-1, 1], which `low` and `high` scale."""
    return _product(plant.low + (plant.high - plant.low) / 2 * (action + 1), plant.forcing)


def substep(xp: Any, plant: Plant, modes: Array, forcing: Array) -> Array:
    """The modes a sub-step later. The forcing is constant in time and part of the nonlinear term, not split from it."""

    def nonlinear(v: Array) -> Array:
        u = xp.fft.irfft(v, plant.points)
        return plant.gradient * xp.fft.rfft(u * u)[..., : plant.modes] + forcing

    n = nonlinear(modes)
    decayed = plant.half * modes
    a = decayed + plant.stage * n
    n_a = nonlinear(a)
    b = decayed + plant.stage * n_a
    n_b = nonlinear(b)
    c = plant.half * a + plant.stage * (2 * n_b - n)
    return plant.whole * modes + plant.first * n + plant.middle * (n_a + n_b) + plant.last * nonlinear(c)


def advance(xp: Any, plant: Plant, modes: Array, forcing: Array) -> Array:
    """The modes at the ends of all sub-steps of a control step, the start included: `[substeps + 1, ..., modes]`."""
    path = [modes]
    for _ in range(plant.substeps):
        path.append(substep(xp, plant, path[-1], forcing))
    return xp.stack(path)


def mean_squares(plant: Plant, modes: Array) -> Array:
    """(<u^2>, <u_x^2>, <u_xx^2>) of modes `[..., modes]`, by Parseval: `[..., 3]`; <> is the mean over x."""
    return _product(modes.real**2 + modes.imag**2, plant.weights)


def mean_product(plant: Plant, one: Array, other: Array) -> Array:
    """<u w> of the modes `[..., modes]` of two fields."""
    return ((one.real * other.real + one.imag * other.imag) * plant.weights[:, 0]).sum(axis=-1)


def _product(values: Array, weights: np.ndarray) -> Array:
    """values @ weights; of JAX the sums themselves, as on a GPU it rounds the factors of such a product to ten bits."""
    if isinstance(values, np.ndarray):
        return values @ weights
    return (values[..., :, None] * weights).sum(axis=-2)


def time_mean(xp: Any, values: Array) -> Array:
    """The mean over a control step of `values` at the ends of its sub-steps `[substeps + 1, ...]`, by trapezoids."""
    return (xp.sum(values, axis=0) - 0.5 * (values[0] + values[-1])) / (len(values) - 1)


def wrapped(x: Array, length: float) -> Array:
    """Distances on the circle, in [-L / 2, L / 2)."""
    return (x + length / 2) % length - length / 2
