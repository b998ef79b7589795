"""Gymnasium environments for the rollout: many side by side, of which any may begin or step.

Gymnasium's own vector environments reset finished members by themselves, or refuse to step while one is finished. The
rollout needs neither: it seeds every episode, and in evaluation members finish at different times. So `Environments`
steps any subset and never resets on its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium import spaces

from legato.envs.failures import in_one_line
from legato.envs.known import known_returns
from legato.errors import LegatoError


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

    def known_returns(self, lengths: Sequence[int]) -> tuple[float, ...] | None:
        """What the best policy earns that decides every so many primitive steps; None where that is unknown."""
        ...

    def close(self) -> None:
        """Close all of them."""
        ...


class GymnasiumEnvironments:
    """A plain list of Gymnasium environments."""

    seeded = True

    def __init__(self, name: str, members: Sequence[Any]):
        self.name = name
        self.members = list(members)
        self.count = len(self.members)
        first = self.members[0]
        self.episode_limit = episode_limit(first)
        self.step_seconds = seconds_per_step(first)
        self._action: Any = first.action_space
        self.start = int(self._action.start) if isinstance(self._action, spaces.Discrete) else 0  # of choices

    def reset(self, index: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        return np.stack([self.members[i].reset(seed=int(seed))[0] for i, seed in zip(index, seeds, strict=True)])

    def step(self, index: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        if isinstance(self._action, spaces.Discrete):  # a vector of one number, counted from 0
            actions = self._action.start + np.rint(actions[:, 0]).astype(self._action.dtype)
        else:  # rounded to its type first: bounds of another type lie elsewhere by a rounding
            actions = np.clip(actions.astype(self._action.dtype), self._action.low, self._action.high)
        results = [self.members[i].step(action)[:4] for i, action in zip(index, actions, strict=True)]
        observations, rewards, terminated, truncated = zip(*results, strict=True)
        return (
            np.stack(observations),
            np.array(rewards, np.float32),
            np.array(terminated),
            np.array(truncated),
        )

    def known_returns(self, lengths: Sequence[int]) -> tuple[float, ...] | None:
        return known_returns(self.members[0], lengths, self.episode_limit)

    def close(self) -> None:
        for member in self.members:
            member.close()


def episode_limit(environment: Any) -> int | None:
    """Primitive steps after which an environment truncates its episodes; None where nothing says so."""
    limits = [getattr(environment.spec, "max_episode_steps", None)]
    while isinstance(environment, gymnasium.Wrapper):
        if isinstance(environment, gymnasium.wrappers.TimeLimit):
            limits.append(environment._max_episode_steps)
        environment = environment.env
    known = [limit for limit in limits if limit is not None]
    return min(known) if known else None


def try_environment(environment: Any, name: str) -> None:
    """Begin an episode and make one step of it, by the middle action, and close the environment.

    Raises `LegatoError` for what `Checked` refuses, and for an environment of an older interface.
    """
    space = environment.action_space
    try:
        environment.reset(seed=0)
        if isinstance(space, spaces.Discrete):
            environment.step(space.start)
        elif isinstance(space, spaces.Box):
            environment.step(((space.low.astype(float) + space.high) / 2).astype(space.dtype))
    except Exception as problem:
        cause = problem.__cause__ if isinstance(problem, LegatoError) else problem  # what `Checked` has named
        if isinstance(cause, TypeError) and "seed" in str(cause):
            raise LegatoError(
                f"environment '{name}' is of an older interface: its reset takes no seed; Gymnasium's is "
                "reset(self, *, seed=None, options=None)"
            ) from problem
        if isinstance(cause, ValueError) and "unpack" in str(cause):
            raise LegatoError(
                f"environment '{name}' is of an older interface: Gymnasium's step returns (observation, reward, "
                "terminated, truncated, info)"
            ) from problem
        if isinstance(problem, LegatoError):
            raise
        raise LegatoError(f"environment '{name}' failed in its first step: {in_one_line(problem)}") from problem
    finally:
        environment.close()


def seconds_per_step(environment: Any) -> float | None:
    """The duration of one primitive step in seconds, where the environment knows it.

    That is an attribute `dt` (MuJoCo's tasks and Pendulum have it), and frames per second for Box2D's; elsewhere these
    say how fast a film runs.
    """
    inner = environment.unwrapped
    dt = getattr(inner, "dt", None)
    if isinstance(dt, Real) and not isinstance(dt, bool) and 0 < float(dt) < np.inf:
        return float(dt)
    fps = environment.metadata.get("render_fps")
    return 1.0 / fps if fps and type(inner).__module__.startswith("gymnasium.envs.box2d") else None
