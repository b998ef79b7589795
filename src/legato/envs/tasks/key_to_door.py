"""A key that is paid for at a door, two rooms later (Chen et al. 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces

from legato.envs.tasks.recording import choice_of, record

if TYPE_CHECKING:
    from legato.data.trajectories import Trajectories

KEY_TO_DOOR = "legato/KeyToDoor-v0"

WIDTH, STAY, ROOMS = 3, 5, 3
CELLS, HORIZON = WIDTH * WIDTH, ROOMS * STAY
MOVES = ((0, 1), (0, -1), (1, 0), (-1, 0))  # right, left, down, up: rows down, columns to the right


class KeyToDoor(gymnasium.Env[np.ndarray, Any]):
    """Touch a key in the first room to be paid at a door in the third: three rooms of 3x3 cells, five steps in each.

    Observes the agent's cell, the object's (none in the second room) and the room, each one-hot: `[9 + 9 + 3]`. On
    entering a room the agent is put on any cell, and the key or door on any other. Moves right, left, down and up
    (0 to 3) end at the walls. Whether the key is held is not observed: it stays in view when it has been touched.
    The reward is 1 for touching the door with the key, and the episode ends there; without the key the door is a cell
    like others. After 15 steps it terminates, for nothing is left to be earned. Acting at random earns 0.088.
    """

    observation_space = spaces.Box(0.0, 1.0, (2 * CELLS + ROOMS,), np.float32)
    action_space = spaces.Discrete(len(MOVES))

    def __init__(self) -> None:
        self.time = self.room = self.agent = 0
        self.object: int | None = None
        self.holds = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.time, self.holds = 0, False
        self._enter(0)
        return self._observation(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        down, right = MOVES[choice_of(action, len(MOVES), KEY_TO_DOOR)]
        row, column = divmod(self.agent, WIDTH)
        row, column = min(max(row + down, 0), WIDTH - 1), min(max(column + right, 0), WIDTH - 1)
        self.agent = row * WIDTH + column
        self.time += 1
        touches = self.agent == self.object
        opened = touches and self.room == ROOMS - 1 and self.holds
        self.holds |= touches and self.room == 0
        over = opened or self.time >= HORIZON
        if not over and self.time % STAY == 0:
            self._enter(self.room + 1)
        return self._observation(), float(opened), over, False, {}

    def _enter(self, room: int) -> None:
        self.room, self.agent = room, int(self.np_random.integers(CELLS))
        empty = room not in (0, ROOMS - 1)
        self.object = None if empty else (self.agent + 1 + int(self.np_random.integers(CELLS - 1))) % CELLS

    def _observation(self) -> np.ndarray:
        seen = np.zeros(2 * CELLS + ROOMS, np.float32)
        seen[self.agent] = seen[2 * CELLS + self.room] = 1
        if self.object is not None:
            seen[CELLS + self.object] = 1
        return seen


def record_key_to_door(episodes: int = 10_000, seed: int = 0) -> Trajectories:
    """Moves at random, all equally likely, through the rooms of Key-to-Door."""
    return record(KeyToDoor(), KEY_TO_DOOR, "random moves", episodes, seed, lambda rng: int(rng.integers(len(MOVES))))
