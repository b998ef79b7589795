"""Controllers that need no learning: functions of an environment and of what it observes, `[..., points]`.

They read the whole field, and are the floor and the mark of what is learnt.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from jaxtyping import Complex, Float

from legato.envs.tasks.pde.environment import FieldEnvironment
from legato.envs.tasks.pde.spectral import Plant, to_field, to_modes
from legato.errors import LegatoError

Controller = Callable[[FieldEnvironment, np.ndarray], np.ndarray]
"""actions `[..., jets]` in [-1, 1]"""

LINEAR_MODES = 8  # of the linear controller, beside the mean


def zero(environment: FieldEnvironment, observation: Float[np.ndarray, "*batch points"]) -> np.ndarray:
    """No forcing, or as little as the bounds allow."""
    plant = environment.plant
    still = np.clip(_to_action(plant, np.zeros(len(plant.jets))), -1, 1)
    return np.broadcast_to(still, (*observation.shape[:-1], len(still)))


def damping(
    environment: FieldEnvironment, observation: Float[np.ndarray, "*batch points"], gain: float = 2.0
) -> np.ndarray:
    """Each jet against the field under it: an amplitude of -gain times the integral of g_i u, clipped."""
    plant = environment.plant
    felt = _whole(environment, observation) @ plant.jets.T * (plant.length / plant.points)
    return np.clip(_to_action(plant, -gain * felt), -1, 1)


def lqr(
    environment: FieldEnvironment, observation: Float[np.ndarray, "*batch points"], cost: float = 0.1
) -> np.ndarray:
    """The linear-quadratic regulator about u = 0 of modes 0 to 8, clipped: least sum of <u^2> + `cost` |a|^2.

    The quadratic term of the equation is left out, and the action held for a control step is allowed for.
    """
    plant = environment.plant
    v = to_modes(np, plant, _whole(environment, observation))
    amplitudes = -real_modes(plant, v)[..., : 2 * LINEAR_MODES + 1] @ feedback(environment, cost).T
    return np.clip(_to_action(plant, amplitudes), -1, 1)


def proportional(
    environment: FieldEnvironment, observation: Float[np.ndarray, "*batch points"], gain: float = 1.0
) -> np.ndarray:
    """The same amplitude at all jets, -gain times the mean of what is observed, clipped."""
    plant = environment.plant
    mean = _whole(environment, observation).mean(axis=-1, keepdims=True)
    return np.clip(_to_action(plant, -gain * mean * np.ones(len(plant.jets))), -1, 1)


def real_modes(plant: Plant, v: Complex[np.ndarray, "*batch modes"]) -> Float[np.ndarray, "*batch twice"]:
    """Coefficients of 1, sqrt(2) cos(k x), sqrt(2) sin(k x), ..., whose squares add up to <u^2>."""
    pairs = np.sqrt(2) / plant.points * np.stack([np.real(v), -np.imag(v)], axis=-1)
    flat = pairs.reshape(*v.shape[:-1], -1)
    return np.concatenate([flat[..., :1] / np.sqrt(2), flat[..., 2:]], axis=-1)


def linear_model(plant: Plant) -> tuple[Float[np.ndarray, " twice"], Float[np.ndarray, "twice jets"]]:
    """About u = 0: growth rates of `real_modes`, and how amplitudes of the jets drive them (c' = growth c + B a)."""
    rates = np.concatenate([plant.growth[:1], np.repeat(plant.growth[1:], 2)])
    return rates, real_modes(plant, plant.forcing).T


@lru_cache(maxsize=8)
def feedback(environment: FieldEnvironment, cost: float) -> Float[np.ndarray, "jets twice"]:
    """K of amplitudes -K c: modes 0 to 8, amplitudes held for a control step.

    Raises `LegatoError` where the jets act on one phase only of a mode that grows, so that no K holds it.
    """
    from scipy.linalg import solve_discrete_are

    plant = environment.plant
    rates, drive = (part[: 2 * LINEAR_MODES + 1] for part in linear_model(plant))
    a = np.diag(np.exp(plant.interval * rates))
    safe = np.where(rates == 0, 1.0, rates)
    b = np.where(rates == 0, plant.interval, np.expm1(plant.interval * rates) / safe)[:, None] * drive
    r = cost * np.eye(len(plant.jets))
    try:
        p = solve_discrete_are(a, b, np.eye(len(rates)), r)
    except np.linalg.LinAlgError:
        what = f"{len(plant.jets)} jets of '{environment.name}' cannot hold u = 0"
        raise LegatoError(f"{what}: a mode grows of which they reach one phase only; take another number") from None
    return np.linalg.solve(r + b.T @ p @ b, b.T @ p @ a)


def _to_action(plant: Plant, amplitude: np.ndarray) -> np.ndarray:
    return 2 * (amplitude - plant.low) / (plant.high - plant.low) - 1


def _whole(environment: FieldEnvironment, observation: np.ndarray) -> np.ndarray:
    observation = np.asarray(observation, np.float64)
    if observation.shape[-1] != environment.plant.points:
        seen = f"{observation.shape[-1]} numbers of {environment.plant.points} points are observed"
        raise LegatoError(f"this controller of '{environment.name}' reads the whole field; {seen}: leave out sensors")
    return observation


def play_batch(
    environment: FieldEnvironment, controller: Controller, episodes: int, seed: int = 0
) -> tuple[Float[np.ndarray, " episodes"], Float[np.ndarray, "episodes points"]]:
    """Returns and last fields of whole episodes side by side, without noise: many times faster than one by one."""
    fields = environment.draw_fields(np.random.default_rng(seed), episodes)
    modes, returns = to_modes(np, environment.plant, fields), np.zeros(episodes)
    for time in range(environment.horizon):
        observation = environment.sense(np, to_field(np, environment.plant, modes), time)
        modes, told = environment.transition(np, modes, controller(environment, observation), time)
        returns = returns + told["reward"]
    return returns, to_field(np, environment.plant, modes)
