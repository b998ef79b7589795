"""Probe environments: worlds so small that the best actions and their values are known by heart.

Each tests one link of the chain from reward to action (after Andy Jones's "Debugging RL, without the agonizing pain").
They share one shape of observation and one box of actions, so that all of them run through one compilation.
"""

from __future__ import annotations

import abc
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

LOW, HIGH = -2.0, 3.0  # off centre, so that an action's scale and offset both matter


class Probe(gymnasium.Env, abc.ABC):
    """Observes `(x, t)`: something to know, and the step. Rewards `1 - (distance / 2)^2` are 1 at best."""

    length = 1
    truncates = False
    observation_space = spaces.Box(-10.0, 10.0, (2,), np.float32)
    action_space = spaces.Box(LOW, HIGH, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.time, self.x = 0, self.first()
        return self.observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        reward = self.reward(float(action[0]))
        self.time += 1
        over = self.time == self.length
        return self.observation(), reward, over and not self.truncates, over and self.truncates, {}

    def observation(self) -> np.ndarray:
        return np.array([self.x, self.time], np.float32)

    def first(self) -> float:
        """x at the start of an episode."""
        return 0.0

    def sign(self) -> float:
        return float(self.np_random.choice([-1.0, 1.0]))

    @abc.abstractmethod
    def reward(self, action: float) -> float: ...


def closeness(action: float, best: float) -> float:
    return 1 - ((action - best) / 2) ** 2


class OneStep(Probe):
    """One action, best at 1.5: does the actor climb the critic?"""

    def reward(self, action: float) -> float:
        return closeness(action, 1.5)


class Constant(Probe):
    """Reward 1 and the end, whatever is done: does the critic learn a reward, and stop at a terminal state?"""

    def reward(self, action: float) -> float:
        return 1.0


class Endless(Constant):
    """Reward 1 and a time limit that no observation shows: does the critic go on behind a truncation?"""

    truncates = True

    def observation(self) -> np.ndarray:
        return np.zeros(2, np.float32)


class Delayed(Probe):
    """Two steps; the second pays the sign seen at the first: does value travel back in time, discounted?"""

    length = 2

    def first(self) -> float:
        return self.sign()

    def reward(self, action: float) -> float:
        return self.x if self.time == 1 else 0.0


class Sign(Probe):
    """One step; the best action is the sign that is seen: does the actor read its observation?"""

    def first(self) -> float:
        return self.sign()

    def reward(self, action: float) -> float:
        return closeness(action, self.x)


class Credit(Probe):
    """Two steps; the second pays for the first action, which it shows: does an action get credit for what follows?"""

    length = 2

    def reward(self, action: float) -> float:
        if self.time == 0:
            self.x = action
            return 0.0
        return closeness(self.x, 1.5)


SIDE = 8  # pixels of an image


class Dot(gymnasium.Env):
    """Shows a bright dot in an image; the best action is its column, from -1 at the left to 1 at the right.

    Each of three steps shows another dot, in any row, among dark noise; then the episode is truncated.
    """

    observation_space = spaces.Box(0, 255, (SIDE, SIDE, 1), np.uint8)
    action_space: spaces.Space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    length = 3

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.time = 0
        return self.observation(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        reward = self.reward(action)
        self.time += 1
        return self.observation(), reward, False, self.time == self.length, {}

    def observation(self) -> np.ndarray:
        image = self.np_random.integers(60, size=(SIDE, SIDE, 1), dtype=np.uint8)
        row, self.column = (int(n) for n in self.np_random.integers(SIDE, size=2))
        image[row, self.column] = 255
        return image

    def best(self) -> float:
        return 2 * self.column / (SIDE - 1) - 1

    def reward(self, action: Any) -> float:
        return 1 - (float(action[0]) - self.best()) ** 2


class DotChoice(Dot):
    """The same with three choices: left, middle and right. A right one earns 1."""

    action_space = spaces.Discrete(3)

    def reward(self, action: Any) -> float:
        return float(int(action) == 3 * self.column // SIDE)


def register() -> None:
    """Make `probe/OneStep-v0` and the others known to Gymnasium in this process."""
    for kind in (OneStep, Constant, Endless, Delayed, Sign, Credit, Dot, DotChoice):
        if f"probe/{kind.__name__}-v0" not in gymnasium.registry:
            gymnasium.register(f"probe/{kind.__name__}-v0", entry_point=kind)
