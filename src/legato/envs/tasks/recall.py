"""A cue to be remembered: passive T-mazes (Bakker 2001; Ni et al. 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces

from legato.envs.tasks.recording import record
from legato.errors import LegatoError

if TYPE_CHECKING:
    from legato.data.trajectories import Trajectories

RECALLS = {100: "legato/Recall-v0", 400: "legato/RecallLong-v0"}  # by their steps


class Recall(gymnasium.Env[np.ndarray, Any]):
    """Remember a cue for a whole episode: only the last of `length` actions is paid, 1 if its sign is the cue's.

    Observes `(cue, noise)`: the cue, -1 or 1, is seen in the first observation only and is 0 from then on; the noise
    is standard normal and says nothing. One action in [-1, 1]. The last reward is the product of the signs of action
    and cue, all others are 0: 1 is solved, and whoever does not remember earns 0 on average. No observation tells the
    time, so the policy has to count as well, or to answer all along.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, length: int = 100):
        if length < 1:
            raise LegatoError(f"an episode of '{RECALLS[100]}' has at least 1 step, not {length}")
        self.length = length
        self.time, self.cue, self.noise = 0, 0.0, 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.time, self.cue = 0, 2.0 * float(self.np_random.integers(2)) - 1
        return self._observation(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.time += 1
        over = self.time >= self.length
        reward = self.cue * float(np.sign(action[0])) if over else 0.0
        return self._observation(), reward, over, False, {}

    def expert(self) -> np.ndarray:
        """The action that `recalls` records: 0.3 tanh(noise), and at last the cue."""
        last = self.time == self.length - 1
        return np.array([self.cue if last else 0.3 * np.tanh(self.noise)], np.float32)

    def _observation(self) -> np.ndarray:
        self.noise = float(self.np_random.standard_normal(dtype=np.float32))
        return np.array([0.0 if self.time else self.cue, self.noise], np.float32)


def record_recall(episodes: int = 1000, length: int = 100, seed: int = 0) -> Trajectories:
    """The expert's actions in Recall: 0.3 tanh(noise), and the cue in the last of `length` steps. Every return is 1."""
    environment = Recall(length)
    return record(environment, RECALLS.get(length), "expert recalls", episodes, seed, lambda rng: environment.expert())
