"""An environment that is checked at every step."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import error, spaces

from legato.envs.description import is_image
from legato.envs.failures import in_one_line, missing_package
from legato.errors import LegatoError


class Checked(gymnasium.Wrapper):
    """An environment that may return only finite numbers, in observations of one shape; else the place is named."""

    def __init__(self, env: gymnasium.Env, name: str):
        super().__init__(env)
        self.name = name
        self.step_number = 0
        space = env.observation_space
        self.dtype = np.uint8 if isinstance(space, spaces.Box) and is_image(space) else np.float32  # as rows are kept
        self.shape = space.shape  # which an environment may change on its way

    def reset(self, **kwargs: Any) -> Any:
        self.step_number = 0
        try:
            found = self.env.reset(**kwargs)
        except (LegatoError, error.Error):
            raise
        except Exception as problem:  # whatever a user's environment does
            raise LegatoError(f"environment '{self.name}' failed in its reset: {in_one_line(problem)}") from problem
        if not isinstance(found, tuple) or len(found) != 2:
            raise LegatoError(
                f"environment '{self.name}' is of an older interface: Gymnasium's reset returns (observation, info)"
            )
        return self._checked(found[0]), found[1]

    def step(self, action: Any) -> Any:
        self.step_number += 1
        try:
            observation, reward, terminated, truncated, info = self.env.step(action)
        except (LegatoError, error.Error):
            raise
        except Exception as problem:  # whatever a user's environment does
            where = f"at step {self.step_number} of an episode"
            raise LegatoError(f"environment '{self.name}' failed {where}: {in_one_line(problem)}") from problem
        try:
            with np.errstate(over="ignore"):  # as it is kept
                number = float(np.float32(np.asarray(reward).item()))
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
            raise missing_package(self.name, problem) from problem

    def _checked(self, observation: Any) -> np.ndarray:
        try:
            with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused below
                array = np.asarray(observation, None if self.dtype is np.uint8 else np.float32)
        except (TypeError, ValueError) as problem:
            raise LegatoError(
                f"environment '{self.name}' returned an observation that is no array of numbers "
                f"at step {self.step_number} of an episode"
            ) from problem
        expected = self.shape
        if array.shape != expected:
            raise LegatoError(
                f"environment '{self.name}' changed its observation from shape {expected} to {array.shape} "
                f"at step {self.step_number} of an episode"
            )
        if self.dtype is np.uint8 and (array.dtype != np.uint8 or np.ma.isMaskedArray(observation)):
            raise LegatoError(
                f"environment '{self.name}' returned an image of type {array.dtype} at step {self.step_number} of an "
                "episode; its observation space says bytes (uint8)"
            )
        array = array.ravel()
        if not np.isfinite(array).all():
            place = int(np.flatnonzero(~np.isfinite(array))[0])
            raise LegatoError(
                f"environment '{self.name}' returned {array[place]} in observation[{place}] "
                f"at step {self.step_number} of an episode"
            )
        return array
