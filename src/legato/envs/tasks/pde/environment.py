"""What environments of a field on a grid have in common: sensors, actions, the end of an episode, and its picture."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from jaxtyping import Float

from legato.envs.space_time import SpaceTime
from legato.envs.tasks.pde import spectral
from legato.envs.tasks.pde.spectral import Array, Plant, to_field, to_modes
from legato.errors import LegatoError

BOUND, PENALTY = 20.0, -1000.0  # of what is sensed, beyond which an episode terminates; and its last reward
MOST = 4096  # points of a grid


class FieldEnvironment(gymnasium.Env[np.ndarray, Any], abc.ABC):
    """A field u(x, t) on a periodic grid, seen by sensors and pushed by jets.

    An equation adds `draw_fields`, `transition` and `_reward_at`, pure functions of arrays with any leading axes, and
    may change `sense`. `step` adds what an episode has: noise, history, its end and its picture.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012 (as Gymnasium has it)
    symbol = "u"
    """of what `sense` shows"""

    def __init__(
        self,
        name: str,
        plant: Plant,
        places: tuple[float, ...],
        horizon: int,
        sensors: int,
        sensor_noise: float,
        history: int,
        render_mode: str | None,
    ):
        self.name, self.plant, self.places = name, plant, places  # of the jets, in fractions of the domain
        self.horizon, self.render_mode = horizon, render_mode
        self.sensor_noise, self.history = sensor_noise, history
        self.sensors = slice(plant.points // sensors // 2, None, plant.points // sensors)
        self.observation_space = spaces.Box(-np.inf, np.inf, (history * sensors,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (len(plant.jets),), np.float32)
        self.time, self.modes = 0, np.zeros(plant.modes, complex)
        self.fields, self.actions, self.seen = [np.zeros(plant.points)], [], []

    # --- pure, for any leading axes, and NumPy's or JAX's arrays ---

    @abc.abstractmethod
    def draw_fields(self, rng: np.random.Generator, count: int) -> Float[np.ndarray, "count points"]:
        """Fields that episodes begin with."""

    @abc.abstractmethod
    def transition(self, xp: Any, modes: Array, action: Array, time: Array) -> tuple[Array, dict[str, Array]]:
        """The modes after the control step that begins at `time`, counted in steps, and what is told of it.

        `reward`, and `dissipation` and `power`, whose difference is the growth of <u^2> / 2: means over the step.
        """

    def sense(self, xp: Any, field: Array, time: Array) -> Array:
        """What noiseless sensors at every point of the grid would say, `[..., points]`."""
        return field

    # --- an episode ---

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        field = self.draw_fields(self.np_random, 1)[0]
        if (given := (options or {}).get("field")) is not None:
            field = np.asarray(given, np.float64)
            if field.shape != (self.plant.points,) or not (np.abs(field) <= BOUND).all():
                size = f"{self.plant.points} numbers of at most {BOUND:g}"
                raise LegatoError(f"a field to begin '{self.name}' with has {size}; shape {field.shape} was given")
        self.time, self.modes = 0, to_modes(np, self.plant, field)
        self.fields, self.actions, self.seen = [to_field(np, self.plant, self.modes)], [], []
        return self._observation(), {"field": self.fields[-1]}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        action = np.clip(np.asarray(action, np.float64), -1, 1)
        with np.errstate(all="ignore"):  # a field that blows up is the episode's end
            self.modes, told = self.transition(np, self.modes, action, self.time)
            field = to_field(np, self.plant, self.modes)
            over = bool(self._terminates(None, action, self.sense(np, field, self.time + 1)))
        if over:
            field = np.clip(np.nan_to_num(field, nan=np.inf), -2 * BOUND, 2 * BOUND)
            told = {name: np.nan_to_num(value) for name, value in told.items()} | {"reward": PENALTY}
        self.time += 1
        self.fields.append(field)
        self.actions.append(action)
        info = {"field": field, **{name: float(value) for name, value in told.items() if name != "reward"}}
        return self._observation(), float(told["reward"]), over, self.time >= self.horizon and not over, info

    def _observation(self) -> np.ndarray:
        seen = self.sense(np, self.fields[-1], self.time)[self.sensors]
        if self.sensor_noise:
            seen = seen + self.sensor_noise * self.np_random.standard_normal(seen.shape)
        self.seen = [*self.seen, seen][-self.history :] if self.seen else [seen] * self.history
        return np.concatenate(self.seen).astype(np.float32)

    # --- what may be known without having played ---

    @property
    def known_reward(self) -> Callable[[Array, Array, Array], Array] | None:
        """The reward as a function of observation, action and next observation, `[..., n]` each: `[...]`.

        It knows what is paid but not how the field moves: where the reward is a mean over a step, this is the mean of
        the step's two ends. It does not know of `PENALTY`. NumPy or JAX by its arguments. None where the observation
        is not the whole field: fewer sensors than points, noise, a history.
        """
        return self._reward_at if self._sees_all else None

    @property
    def known_termination(self) -> Callable[[Array, Array, Array], Array] | None:
        """Does an episode terminate, by observation, action and next observation? None where they do not tell."""
        return self._terminates if self._sees_all else None

    @property
    def grid_forcing(self) -> Callable[[Array], Array] | None:
        """What actions `[..., jets]` in [-1, 1] add to u_t at the points `[..., points]`, by NumPy or JAX.

        Like `known_reward` it is None where the observation is not the whole field.
        """
        return self._force_at if self._sees_all else None

    def _force_at(self, action: Array) -> Array:
        return spectral.force(self.plant._replace(forcing=self.plant.jets), action)

    @property
    def _sees_all(self) -> bool:
        return self.sensors == slice(0, None, 1) and not self.sensor_noise and self.history == 1

    @abc.abstractmethod
    def _reward_at(self, observation: Array, action: Array, next_observation: Array) -> Array:
        """`known_reward`, where the observation is the whole field."""

    def _terminates(self, observation: Array, action: Array, next_observation: Array) -> Array:
        return ~(abs(next_observation).max(axis=-1) <= BOUND)  # NaN is no field either

    # --- what is seen ---

    def picture(self) -> SpaceTime:
        """The episode so far."""
        shown = np.array([self.sense(np, field, time) for time, field in enumerate(self.fields)])
        actions = np.array(self.actions).reshape(-1, len(self.plant.jets))
        places = tuple(self.plant.length * place for place in self.places)
        plant, horizon = self.plant, self.horizon
        return SpaceTime(shown, actions, plant.length, plant.interval, horizon, places, self.symbol)

    def render(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.picture().pixels() if self.render_mode == "rgb_array" else None


def check_sizes(
    name: str,
    *,
    points: Any,
    substeps: Any,
    horizon: Any,
    sensors: Any,
    sensor_noise: float,
    history: Any,
    render_mode: str | None,
) -> None:
    """Raise `LegatoError` for sizes that fit neither the grid nor each other, before anything is allocated."""
    for what, size, least, most in (
        ("N", points, 16, MOST),
        ("substeps", substeps, 1, 1000),
        ("horizon", horizon, 1, 100_000),
        ("history", history, 1, 100),
        ("sensors", sensors, 1, MOST),
    ):
        if not isinstance(size, int | np.integer) or isinstance(size, bool) or not least <= size <= most:
            raise LegatoError(f"`{what}` of '{name}' is a whole number from {least} to {most}; {size!r} was given")
    if points % 2:
        raise LegatoError(f"`N` of '{name}' is even; {points} was given")
    if points % sensors:
        raise LegatoError(f"{sensors} `sensors` of '{name}' do not fit the grid: a divisor of N={points} is needed")
    require(name, "sensor_noise", sensor_noise, lambda noise: 0 <= noise < np.inf, "a number of at least 0")
    if render_mode not in (None, "rgb_array"):
        raise LegatoError(f"`render_mode` of '{name}' is 'rgb_array' or None; {render_mode!r} was given")


def require(name: str, what: str, value: Any, holds: Callable[[Any], bool], must: str) -> None:
    """Raise `LegatoError` unless this option is a number that is as it must be."""
    if not isinstance(value, int | float | np.number) or isinstance(value, bool) or not holds(value):
        raise LegatoError(f"`{what}` of '{name}' is {must}; {value!r} was given")
