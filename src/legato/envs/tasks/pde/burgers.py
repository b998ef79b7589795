"""Burgers' equation with two actuators: a field that is to follow a reference (after PIMBRL, Liu & Wang 2021)."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float

from legato.envs.tasks.pde import spectral
from legato.envs.tasks.pde.environment import FieldEnvironment, check_sizes, require
from legato.envs.tasks.pde.spectral import Array, Plant

BURGERS = "legato/Burgers-v0"

LOW, HIGH = -0.025, 0.075  # amplitudes of an actuator
CENTRES, SHARPNESS = (0.25, 0.75), 225.0  # g(x) = exp(-225 (x - c)^2)


class Burgers(FieldEnvironment):
    """Make u of u_t = nu u_xx - (u^2)_x / 2 + sum of a_i g_i(x), periodic on [0, 1), follow 0.5 + 0.05 sin(pi t / 15).

    Two actuators g = exp(-225 (x - c)^2) at 1/4 and 3/4, whose amplitude from -0.025 to 0.075 an action in [-1, 1]
    scales, held for 0.5 units of time. Observes the error u - u_ref at `sensors` of the `N` points, with normal noise
    of `sensor_noise`, the last `history` observations one after another. The reward is -10 <(u - u_ref)^2> at the
    step's end; an episode of `horizon` steps is truncated. It begins at 0.2 + 0.2 w exp(-25 (x - 0.5)^2) + 0.2 (1 - w)
    sin(4 pi x) with w uniform in [0, 1], or at `reset(options={"field": u})`. `info` has the `field`, the
    `dissipation` nu <u_x^2> and the `power` <u f>, means over the step. The solver is that of Kuramoto-Sivashinsky, not
    the published one of finite differences: returns of controllers agree.

    Feedback in proportion to the mean error nearly solves it, so it shows no more than that a learner works.
    """

    symbol = "error"

    def __init__(
        self,
        N: int = 150,
        nu: float = 0.01,
        dt: float = 0.05,
        substeps: int = 10,
        horizon: int = 60,
        sensors: int | None = None,
        sensor_noise: float = 0.0,
        history: int = 1,
        render_mode: str | None = None,
    ):
        sensors = N if sensors is None else sensors
        sizes: dict[str, Any] = {"substeps": substeps, "horizon": horizon, "sensors": sensors}
        sizes |= {"sensor_noise": sensor_noise, "history": history, "render_mode": render_mode}
        check_sizes(BURGERS, points=N, **sizes)
        require(BURGERS, "nu", nu, lambda nu: 0.005 <= nu <= 1, "a number from 0.005 to 1")
        require(BURGERS, "dt", dt, lambda dt: 0 < dt <= 0.05, "a positive number of at most 0.05")
        self.nu = nu
        places, plant = CENTRES, burgers(N, nu, dt, substeps)
        super().__init__(BURGERS, plant, places, horizon, sensors, sensor_noise, history, render_mode)

    def draw_fields(self, rng: np.random.Generator, count: int) -> Float[np.ndarray, "count points"]:
        x, w = np.arange(self.plant.points) / self.plant.points, rng.random((count, 1))
        return 0.2 + 0.2 * w * np.exp(-25 * (x - 0.5) ** 2) + 0.2 * (1 - w) * np.sin(4 * np.pi * x)

    def reference(self, xp: Any, time: Array) -> Array:
        """What u is to be after so many steps, everywhere."""
        return 0.5 + 0.05 * xp.sin(np.pi / 15 * self.plant.interval * time)

    def sense(self, xp: Any, field: Array, time: Array) -> Array:
        return field - self.reference(xp, time)

    def transition(self, xp: Any, modes: Array, action: Array, time: Array) -> tuple[Array, dict[str, Array]]:
        forcing = spectral.force(self.plant, action)
        path = spectral.advance(xp, self.plant, modes, forcing)
        error = self.sense(xp, spectral.to_field(xp, self.plant, path[-1]), time + 1)
        told = {"dissipation": self.nu * spectral.mean_squares(self.plant, path)[..., 1]}
        told["power"] = spectral.mean_product(self.plant, path, forcing)
        means = {name: spectral.time_mean(xp, value) for name, value in told.items()}
        return path[-1], {"reward": -10 * (error**2).mean(axis=-1), **means}

    def _reward_at(self, observation: Array, action: Array, next_observation: Array) -> Array:
        return -10 * (next_observation**2).mean(axis=-1)


@cache
def burgers(points: int = 150, nu: float = 0.01, dt: float = 0.05, substeps: int = 10) -> Plant:
    """The equation with its two actuators."""
    apart = spectral.wrapped(np.arange(points) / points - np.array(CENTRES)[:, None], 1.0)
    return spectral.plant(1.0, points, lambda k: -nu * k**2, np.exp(-SHARPNESS * apart**2), LOW, HIGH, dt, substeps)
