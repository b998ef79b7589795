"""Gymnasium environments for the rollout: built by id, described, checked at every step, many side by side.

Gymnasium's own vector environments reset finished members by themselves, or refuse to step while one is finished. The
rollout needs neither: it seeds every episode, and in evaluation members finish at different times. So `Environments`
steps any subset and never resets on its own.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium import error, spaces

from legato.data.spec import Spec
from legato.errors import LegatoError, unknown

# What to install when an environment's dependency is missing, by the package Gymnasium asks for.
_EXTRAS = {"mujoco": "mujoco", "Box2D": "box2d", "box2d": "box2d", "pygame": "classic"}


def known_ids() -> list[str]:
    """Every registered Gymnasium id, newest versions included, sorted."""
    return sorted(str(name) for name in gymnasium.registry)


# Families that Gymnasium-Robotics registers when it is imported, which takes a second.
_ROBOTICS = ("Adroit", "AntMaze", "Fetch", "FrankaKitchen", "HandManipulate", "HandReach", "PointMaze")


def make(environment_id: str, **kwargs: Any) -> Any:
    """One Gymnasium environment, wrapped in `Checked`.

    Raises `LegatoError` for an unknown id (naming the nearest) and a missing optional dependency (naming the extra).
    """
    with warnings.catch_warnings(), _quiet_mujoco(environment_id):
        warnings.simplefilter("ignore")  # 'v4 is out of date': the caller chose the version
        try:
            if environment_id.startswith(_ROBOTICS):
                gymnasium.register_envs(importlib.import_module("gymnasium_robotics"))
            environment = gymnasium.make(environment_id, disable_env_checker=True, **kwargs)
        except (
            error.NameNotFound,
            error.VersionNotFound,
            error.NamespaceNotFound,
            error.UnregisteredEnv,
        ) as problem:
            raise unknown("environment", environment_id, known_ids(), "see 'legato list envs'") from problem
        except (error.DependencyNotInstalled, ImportError) as problem:
            raise _missing(environment_id, problem) from problem
        except error.Error as problem:
            raise LegatoError(f"environment '{environment_id}': {' '.join(str(problem).split())}") from problem
    return Checked(environment, environment_id)


@contextmanager
def _quiet_mujoco(environment_id: str) -> Iterator[None]:
    """Of the models that Gymnasium brings, MuJoCo says what no user can change: on stderr, and in a file here."""
    kind = gymnasium.registry.get(environment_id)
    if kind is None or "mujoco" not in str(kind.entry_point) or importlib.util.find_spec("mujoco") is None:
        yield
        return
    mujoco: Any = importlib.import_module("mujoco")
    mujoco.set_mju_user_warning(lambda text: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(None)


def _missing(name: str, problem: Exception) -> LegatoError:
    if isinstance(problem, ModuleNotFoundError) and problem.name == "gymnasium_robotics":
        return LegatoError(f"environment '{name}' needs a package that is missing: pip install 'legato[robotics]'")
    absent = isinstance(problem, error.DependencyNotInstalled)  # else it has moved, or an import of its own failed
    extra = next((e for package, e in _EXTRAS.items() if absent and package in str(problem)), None)
    advice = f"pip install 'legato[{extra}]'" if extra else str(problem).splitlines()[0]
    return LegatoError(f"environment '{name}' needs a package that is missing: {advice}")


class Checked(gymnasium.Wrapper):
    """An environment that may return only finite numbers, in observations of one shape; else the place is named."""

    def __init__(self, env: gymnasium.Env, name: str):
        super().__init__(env)
        self.name = name
        self.step_number = 0

    def reset(self, **kwargs: Any) -> Any:
        self.step_number = 0
        observation, info = self.env.reset(**kwargs)
        return self._checked(observation), info

    def step(self, action: Any) -> Any:
        self.step_number += 1
        observation, reward, terminated, truncated, info = self.env.step(action)
        try:
            number = float(np.asarray(reward).item())
        except (TypeError, ValueError):
            number = np.nan
        if not np.isfinite(number):
            raise LegatoError(
                f"environment '{self.name}' returned reward {reward} at step {self.step_number} of an episode"
            )
        return self._checked(observation), number, terminated, truncated, info

    def render(self) -> Any:
        try:
            return self.env.render()
        except error.DependencyNotInstalled as problem:
            raise _missing(self.name, problem) from problem

    def _checked(self, observation: Any) -> np.ndarray:
        try:
            with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused below
                array = np.asarray(observation, np.float32)
        except (TypeError, ValueError) as problem:
            raise LegatoError(
                f"environment '{self.name}' returned an observation that is no array of numbers "
                f"at step {self.step_number} of an episode"
            ) from problem
        expected = self.env.observation_space.shape
        if array.shape != expected:
            raise LegatoError(
                f"environment '{self.name}' changed its observation from shape {expected} to {array.shape} "
                f"at step {self.step_number} of an episode"
            )
        array = array.ravel()
        if not np.isfinite(array).all():
            place = int(np.flatnonzero(~np.isfinite(array))[0])
            raise LegatoError(
                f"environment '{self.name}' returned {array[place]} in observation[{place}] "
                f"at step {self.step_number} of an episode"
            )
        return array


def describe(
    environment: Any, name: str, user: str = "", supporters: Sequence[str] = (), *, discrete: bool = False
) -> Spec:
    """The environment's spec: a flat observation and a bounded continuous action, or a choice where that is supported.

    `user` is the algorithm that asks and `supporters` those that would take what it cannot; both only word the error.
    Raises `LegatoError` for dict and other spaces, for actions without finite bounds, and for choices unless
    `discrete`.
    """

    def refuse(what: str) -> LegatoError:
        who = f" by {user}" if user else ""
        instead = (
            f"algorithms that support it: {', '.join(supporters)}" if supporters else "no algorithm supports it yet"
        )
        return LegatoError(f"{what} of '{name}' are not supported{who}; {instead}")

    observation, action = environment.observation_space, environment.action_space
    if not isinstance(observation, spaces.Box):
        raise refuse(f"{type(observation).__name__.lower()} observations")
    size = int(np.prod(observation.shape))
    if discrete and isinstance(action, spaces.Discrete):
        return Spec.discrete(size, int(action.n))
    if not isinstance(action, spaces.Box):
        raise refuse(f"{type(action).__name__.lower()} actions")
    if len(action.shape) != 1:
        raise refuse(f"actions of shape {action.shape}")
    if not np.issubdtype(action.dtype, np.floating):
        raise refuse(f"actions of type {action.dtype}")
    low, high = action.low.astype(float), action.high.astype(float)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        bad = int(np.flatnonzero(~(np.isfinite(low) & np.isfinite(high)))[0])
        raise LegatoError(
            f"action[{bad}] of '{name}' has no finite bounds ({low[bad]} to {high[bad]}); "
            "wrap the environment in gymnasium.wrappers.RescaleAction or give its Box finite limits"
        )
    return Spec(size, tuple(low.tolist()), tuple(high.tolist()))


class Environments(Protocol):
    """Several copies of one environment. `index` picks which of them a call concerns."""

    name: str
    count: int
    episode_limit: int | None
    step_seconds: float | None  # duration of a primitive step, where the environment tells
    seeded: bool  # does reset honour its seed, so that an episode can be replayed?

    def reset(self, index: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Observations `[len(index), obs]` of new episodes, each from its own seed."""
        ...

    def step(self, index: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """`(observations, rewards, terminated, truncated)` of the members in `index` after their `actions`."""
        ...

    def close(self) -> None: ...


class GymnasiumEnvironments:
    """A plain list of Gymnasium environments."""

    seeded = True

    def __init__(self, name: str, members: Sequence[Any]):
        self.name = name
        self.members = list(members)
        self.count = len(self.members)
        first = self.members[0]
        self.episode_limit = getattr(first.spec, "max_episode_steps", None)
        self.step_seconds = seconds_per_step(first)
        self._action: Any = first.action_space
        self.start = int(self._action.start) if isinstance(self._action, spaces.Discrete) else 0  # of choices

    def reset(self, index: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        return np.stack([self.members[i].reset(seed=int(seed))[0] for i, seed in zip(index, seeds, strict=True)])

    def step(self, index: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        if isinstance(self._action, spaces.Discrete):  # a vector of one number, counted from 0
            actions = self._action.start + np.rint(actions[:, 0]).astype(self._action.dtype)
        else:
            actions = actions.astype(self._action.dtype)
        results = [self.members[i].step(action)[:4] for i, action in zip(index, actions, strict=True)]
        observations, rewards, terminated, truncated = zip(*results, strict=True)
        return (
            np.stack(observations),
            np.array(rewards, np.float32),
            np.array(terminated),
            np.array(truncated),
        )

    def close(self) -> None:
        for member in self.members:
            member.close()


def seconds_per_step(environment: Any) -> float | None:
    """The duration of one primitive step in seconds, where the environment knows it (MuJoCo, Pendulum, Box2D)."""
    inner = environment.unwrapped
    dt = getattr(inner, "dt", None)
    if isinstance(dt, int | float):
        return float(dt)
    fps = environment.metadata.get("render_fps")
    return 1.0 / fps if fps and type(inner).__module__.startswith("gymnasium.envs.box2d") else None
