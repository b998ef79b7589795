"""The Kuramoto-Sivashinsky equation with jets: a chaotic field to be calmed (Werner & Peitz 2023, arXiv 2302.07160)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from legato.envs.tasks.pde import spectral
from legato.envs.tasks.pde.environment import MOST, FieldEnvironment, check_sizes, require
from legato.envs.tasks.pde.spectral import Array, Plant
from legato.envs.tasks.pde.starts import draw_states
from legato.errors import LegatoError

KURAMOTO_SIVASHINSKY = "legato/KuramotoSivashinsky-v0"
EIGHT_JETS = "legato/KuramotoSivashinsky-8jets-v0"

REWARDS = ("l2", "dissipation")
COARSEST = 1.0  # between points: the modes that are kept decay from wave number 1 on, and must reach well beyond
BURN_IN_DT = 0.1  # the relative error of 5 units of time is 7e-6, a tenth of float32's on the way to the attractor


class KuramotoSivashinsky(FieldEnvironment):
    """Calm u_t = -u_xx - u_xxxx - (u^2)_x / 2 + sum of a_i g_i(x), chaotic on [0, 22) without jets.

    `jets` Gaussians of width `sigma`, g = exp(-d^2 / (2 sigma^2)) / sqrt(2 pi sigma), stand equispaced from x = 0, or
    where a sequence says, in fractions of `L`; an action in [-1, 1] of each, times `amplitude`, is held for `substeps`
    steps of `dt`, 0.25 units of time. Observes u at `sensors` of the `N` points, half a stride from the ends, with
    normal noise of `sensor_noise`, the last `history` observations one after another (at first all the same). An
    episode of `horizon` steps, 100 units of time, is truncated; it terminates where |u| > 20, which pays -1000.

    The reward is a mean over the control step, by trapezoids of its sub-steps: -<u^2> (`l2`), with which the published
    curves were made, or -(<u_xx^2> + <u_x^2> + <u f>) (`dissipation`), dissipation and input power, which the paper
    states. Without control an episode of `l2` earns about -560. `info` has the `field`, the `dissipation` <u_xx^2>, the
    `power` <u_x^2> + <u f> and of it the `input` <u f>.

    Four equispaced jets act on one phase only of the mode of half the domain's length, which grows: u = 0 cannot be
    stabilised with them, and published curves end near -200. Eight can: a linear controller earns about -16.

    An episode begins on the attractor (see `draw_states`), shifted by a whole number of gaps between jets and perhaps
    reflected, u(x) -> -u(-x): the plant's symmetries. With `periodic_jets=False` a jet at x = 0 has only its right
    half, as in the published code, and there are no such symmetries. `reset(options={"field": u})` begins with u.
    """

    def __init__(
        self,
        reward: str = "l2",
        L: float = 22.0,
        N: int = 64,
        jets: int | Sequence[float] = 4,
        sigma: float = 0.4,
        amplitude: float = 1.0,
        dt: float = 0.05,
        substeps: int = 5,
        horizon: int = 400,
        sensors: int | None = None,
        sensor_noise: float = 0.0,
        periodic_jets: bool = True,
        history: int = 1,
        render_mode: str | None = None,
    ):
        name = KURAMOTO_SIVASHINSKY
        sensors = N if sensors is None else sensors
        sizes: dict[str, Any] = {"substeps": substeps, "horizon": horizon, "sensors": sensors}
        sizes |= {"sensor_noise": sensor_noise, "history": history, "render_mode": render_mode}
        if reward not in REWARDS:
            raise LegatoError(f"`reward` of '{name}' is 'l2' or 'dissipation'; {reward!r} was given")
        check_sizes(name, points=N, **sizes)
        require(name, "L", L, lambda length: 0 < length < np.inf, "a positive number")
        require(name, "amplitude", amplitude, lambda most: 0 < most < np.inf, "a positive number")
        require(name, "dt", dt, lambda dt: 0 < dt <= 0.1, "a positive number of at most 0.1")
        require(name, "sigma", sigma, lambda width: 0 < width <= L / 4, f"positive and at most a quarter of L={L:g}")
        if min(sigma, COARSEST) < L / N:
            gap = f"{L / N:.3g} between the points of '{name}' is too much for sigma={sigma:g}, L={L:g}"
            raise LegatoError(f"{gap}: at least N={2 * int(np.ceil(L / min(sigma, COARSEST) / 2))} is needed")
        places = _places(jets, N)
        self.symmetric = bool(periodic_jets) and isinstance(jets, int)
        self.reward = reward
        plant = kuramoto_sivashinsky(
            float(L), int(N), places, float(sigma), float(amplitude), float(dt), int(substeps), bool(periodic_jets)
        )
        super().__init__(name, plant, places, horizon, sensors, sensor_noise, history, render_mode)

    def draw_fields(self, rng: np.random.Generator, count: int) -> Float[np.ndarray, "count points"]:
        states = attractor(self.plant.length, self.plant.points)
        found = spectral.to_modes(np, self.plant, states[rng.integers(len(states), size=count)].astype(np.float64))
        if self.symmetric:
            by, reflected = rng.integers(len(self.places), size=count), rng.random(count) < 0.5
            found = np.where(reflected[:, None], -found.conj(), found)
            turn = 2 * np.pi / len(self.places) * by[:, None] * np.arange(self.plant.modes)
            found = np.exp(-1j * turn) * found
        return spectral.to_field(np, self.plant, found)

    def transition(self, xp: Any, modes: Array, action: Array, time: Array = 0) -> tuple[Array, dict[str, Array]]:
        forcing = spectral.force(self.plant, action)
        path = spectral.advance(xp, self.plant, modes, forcing)
        told = self._told(spectral.mean_squares(self.plant, path), spectral.mean_product(self.plant, path, forcing))
        return path[-1], {name: spectral.time_mean(xp, value) for name, value in told.items()}

    def _told(self, squares: Array, given: Array) -> dict[str, Array]:
        """By (<u^2>, <u_x^2>, <u_xx^2>) and <u f>."""
        dissipation, power = squares[..., 2], squares[..., 1] + given
        reward = -squares[..., 0] if self.reward == "l2" else -(dissipation + power)
        return {"reward": reward, "dissipation": dissipation, "power": power, "input": given}

    def _reward_at(self, observation: Array, action: Array, next_observation: Array) -> Array:
        xp, forcing = next_observation.__array_namespace__(), spectral.force(self.plant, action)
        ends = [spectral.to_modes(xp, self.plant, field) for field in (observation, next_observation)]
        rewards = [
            self._told(spectral.mean_squares(self.plant, v), spectral.mean_product(self.plant, v, forcing))["reward"]
            for v in ends
        ]
        return (rewards[0] + rewards[1]) / 2


def _places(jets: Any, points: int) -> tuple[float, ...]:
    """Where jets stand, in fractions of the domain."""
    name = KURAMOTO_SIVASHINSKY
    if isinstance(jets, int) and not isinstance(jets, bool):
        if not 1 <= jets <= points // 2:
            half = f"from 1 to {points // 2}, half of N"
            raise LegatoError(f"{jets} `jets` do not fit the grid of '{name}': a number {half}, is needed")
        return tuple(i / jets for i in range(jets))
    if not isinstance(jets, Sequence) or not 1 <= len(jets) <= MOST or not all(_fraction(place) for place in jets):
        raise LegatoError(f"`jets` of '{name}' are a number or places from 0 to 1; {jets!r} was given")
    return tuple(float(place) for place in jets)


def _fraction(place: Any) -> bool:
    return isinstance(place, int | float) and 0 <= place < 1


@cache
def kuramoto_sivashinsky(
    length: float = 22.0,
    points: int = 64,
    places: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75),
    sigma: float = 0.4,
    amplitude: float = 1.0,
    dt: float = 0.05,
    substeps: int = 5,
    periodic: bool = True,
) -> Plant:
    """The equation with jets at these fractions of the domain."""
    x = length / points * np.arange(points)
    apart = x - length * np.array(places)[:, None]
    apart = spectral.wrapped(apart, length) if periodic else apart
    jets = np.exp(-(apart**2) / (2 * sigma**2)) / np.sqrt(2 * np.pi * sigma)
    return spectral.plant(length, points, lambda k: k**2 - k**4, jets, -amplitude, amplitude, dt, substeps)


@cache
def attractor(length: float, points: int) -> Float32[np.ndarray, "states points"]:
    """States without jets; computed once in a process."""
    return draw_states(kuramoto_sivashinsky(length, points, dt=BURN_IN_DT, substeps=1))
