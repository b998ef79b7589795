"""Experience of a task: episodes played one after another and recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces

from legato.errors import LegatoError

if TYPE_CHECKING:
    from legato.data.trajectories import Trajectories


def record(
    environment: gymnasium.Env,
    environment_id: str | None,
    name: str,
    episodes: int,
    seed: int,
    act: Callable[[np.random.Generator], Any],
) -> Trajectories:
    """Plays episodes one after another. The environment has a generator of `seed`, and the actions one of their own.

    Where there is no action, after the first, the episode is cut.
    """
    from legato.data.trajectories import About, trajectories  # brings SciPy, which whoever only plays need not wait for

    if episodes < 1:
        raise LegatoError(f"{episodes} episodes of {name}: one at least is needed")
    if seed < 0:
        raise LegatoError(f"a seed is 0 or more, not {seed}")
    rng = np.random.default_rng([seed, 1])
    observations, actions, rewards, terminations, truncations, ends = [], [], [], [], [], []
    for i in range(episodes):
        observation, _ = environment.reset(seed=seed if i == 0 else None)
        over = False
        while not over:
            action = act(rng)
            if action is None:
                truncations[-1] = True
                break
            observations.append(observation)
            actions.append(action)
            observation, reward, terminated, truncated, _ = environment.step(action)
            rewards.append(reward)
            terminations.append(terminated)
            truncations.append(truncated)
            over = terminated or truncated
        ends.append(observation)
    space: Any = environment.action_space
    if isinstance(space, spaces.Discrete):
        about = About(name, environment_id, choices=int(space.n))
    else:
        about = About(name, environment_id, low=tuple(space.low.tolist()), high=tuple(space.high.tolist()))
    columns = (np.array(column) for column in (observations, actions, rewards, terminations, truncations))
    return trajectories(*columns, final_observations=np.array(ends), about=about)


def choice_of(action: Any, choices: int, name: str) -> int:
    chosen = int(action)
    if not 0 <= chosen < choices:
        raise LegatoError(f"action {action} of '{name}' is none of 0 to {choices - 1}")
    return chosen
