"""EnvPool as a source of experience (extra `envpool`): C++ environments stepped by a thread pool.

EnvPool seeds its members once, at construction, and starts the next episode by itself; it therefore cannot replay an
episode, and a run that uses it resumes with fresh episodes instead of bit for bit.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from legato.envs.construction import make
from legato.envs.environments import episode_limit, seconds_per_step
from legato.errors import LegatoError, unknown


class EnvPoolEnvironments:
    """`count` members of one EnvPool; finished members wait until they are reset."""

    seeded = False

    def __init__(self, name: str, count: int):
        try:
            from envpool.registration import list_all_envs, make_gymnasium  # type: ignore[import-not-found]
        except ImportError as problem:
            raise LegatoError("EnvPool is not installed: pip install 'legato[envpool]'") from problem
        if name not in list_all_envs():
            raise unknown("EnvPool environment", name, list_all_envs(), "it may exist in Gymnasium only")
        self.name = name
        self.count = count
        self.pool: Any = None
        self._make = partial(make_gymnasium, name, num_envs=count)
        reference = make(name)
        self.episode_limit = episode_limit(reference)
        self.step_seconds = seconds_per_step(reference)
        reference.close()

    def reset(self, index: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        if self.pool is None:  # the first reset concerns every member
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # EnvPool's bounds are float64 in float32 spaces
                self.pool = self._make(seed=seeds.tolist())
                _ = self.pool.observation_space, self.pool.action_space
        observations, _ = self.pool.reset(index.astype(np.int32))
        return self._checked(observations, len(index))

    def step(self, index: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        observations, rewards, terminated, truncated, _ = self.pool.step(actions, index.astype(np.int32))
        if not np.isfinite(rewards).all():
            raise LegatoError(f"EnvPool environment '{self.name}' returned a reward that is not finite")
        return self._checked(observations, len(index)), rewards.astype(np.float32), terminated, truncated

    def _checked(self, observations: np.ndarray, count: int) -> np.ndarray:
        if not np.isfinite(observations).all():
            raise LegatoError(f"EnvPool environment '{self.name}' returned an observation that is not finite")
        rows = observations.reshape(count, -1)
        return rows if rows.dtype == np.uint8 else rows.astype(np.float32)

    def known_returns(self, lengths: Sequence[int]) -> tuple[float, ...] | None:
        return None  # EnvPool's tasks tell none

    def close(self) -> None:
        if self.pool is not None:
            self.pool.close()
