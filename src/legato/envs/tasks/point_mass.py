"""A mass on a line, to be brought to 0 and held there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces

from legato.envs.tasks.recording import record

if TYPE_CHECKING:
    from legato.data.trajectories import Trajectories

POINT_MASS = "legato/PointMass-v0"
PUSHES = 100  # steps of an episode of the point mass


class PointMass(gymnasium.Env[np.ndarray, Any]):
    """A mass on a line, to be brought to 0 and held there for the 100 steps of an episode.

    Observes `(x, v)`; the action in [-1, 1] pushes: v <- 0.98 (v + 0.2 a), x <- x + 0.1 v. It begins at rest, at x
    uniform in [-2, 2], and a step pays 1 - min(1, |x|).
    """

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self) -> None:
        self.time, self.x, self.v = 0, 0.0, 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.time, self.x, self.v = 0, float(self.np_random.uniform(-2, 2)), 0.0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.time += 1
        self.v = 0.98 * (self.v + 0.2 * float(np.clip(action[0], -1, 1)))
        self.x += 0.1 * self.v
        reward = float(np.float32(1 - min(1.0, abs(self.x))))  # as it is logged
        return self._observation(), reward, False, self.time >= PUSHES, {}

    def _observation(self) -> np.ndarray:
        return np.array([self.x, self.v], np.float32)


def record_point_mass(episodes: int = 600, seed: int = 0, worst: float = 1.0) -> Trajectories:
    """Controllers of a point mass, good and bad: a = -p x - d v + 0.2 noise with p ~ U(-0.2, 3), d ~ U(0, 4) of each.

    Only this share of the episodes is kept, the `worst` by return.
    """
    environment, gains = PointMass(), np.zeros(2)

    def act(rng: np.random.Generator) -> np.ndarray:
        if environment.time == 0:
            gains[:] = rng.uniform((-0.2, 0.0), (3.0, 4.0))
        wanted = -gains[0] * environment.x - gains[1] * environment.v + 0.2 * rng.standard_normal()
        return np.array([np.clip(wanted, -1, 1)], np.float32)

    found = record(environment, POINT_MASS, "pushes", episodes, seed, act)
    if worst >= 1:
        return found
    from legato.data import sets
    from legato.data import trajectories as logs

    order = np.argsort(logs.returns(found), kind="stable")
    return sets.select(found, np.sort(order[: max(1, round(worst * episodes))]))
