"""Episodes of a policy in an environment that has goals, and that may tell the policy its goal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from jaxtyping import Float

from legato.data.spec import Spec
from legato.envs.construction import EnvironmentConfig, make
from legato.envs.environments import GymnasiumEnvironments
from legato.errors import LegatoError
from legato.policy import Policy
from legato.rollout import Clock, Experience, Rollout, episode_seed, stack


@dataclass(frozen=True, eq=False)
class GoalEpisode:
    """One episode on the way to a goal."""

    places: Float[np.ndarray, "steps_and_one obs"]
    """what was observed, from the start to the end"""
    goal: Float[np.ndarray, " obs"]
    arrived: bool
    """did the episode terminate, rather than run out of time?"""
    decisions: int
    episode_return: float
    """undiscounted"""

    @property
    def steps(self) -> int:
        """Primitive steps."""
        return len(self.places) - 1


class FixedStart(gymnasium.Wrapper):
    """An environment whose episodes begin as the options say."""

    def __init__(self, environment: Any, options: dict[str, Any]):
        super().__init__(environment)
        self.options = options

    def reset(self, **kwargs: Any) -> Any:
        return self.env.reset(**kwargs, options=self.options or None)


def play_goal_episode(
    policy: Policy[Any],
    environment: str | EnvironmentConfig,
    spec: Spec,
    clock: Clock,
    seed: int,
    episode: int = 0,
    *,
    start: Sequence[float] | None = None,
    goal: Sequence[float] | None = None,
    command: Any = None,
) -> GoalEpisode:
    """Play one greedy test episode in an environment that names its goal in `info`, and tell the policy this goal.

    A `command` is told instead: `()` or a target return. `start` and `goal` replace those that the episode would have
    had. Raises `LegatoError` for an environment without goals, and for a start or goal that it or the policy refuses.
    """
    if episode < 0:
        raise LegatoError(f"episodes are numbered from 0; {episode} was given")
    options = {name: given for name, given in (("start", start), ("goal", goal)) if given is not None}
    checked = make(environment)
    made, name = FixedStart(checked, options), checked.name
    try:
        seeded = episode_seed(seed, "test", episode)
        if "goal" not in made.env.reset(seed=seeded)[1]:
            raise LegatoError(f"'{name}' has no goals to walk to")
        known_goal = np.asarray(made.reset(seed=seeded)[1]["goal"], np.float32)
        if goal is not None and not np.array_equal(known_goal, np.asarray(goal, np.float32)):
            raise LegatoError(f"'{name}' cannot be given a goal: leave it out")
        command = known_goal if command is None else command
        policy.init_state(command)  # a rollout compiles this, and then nothing is refused
        environments = GymnasiumEnvironments(name, [made])
        rollout = Rollout(environments, spec, clock, [seed], "test", once=True, command=command, first_episode=episode)
        parts, ended = [], []
        while not ended:
            part, ended = rollout.run(stack([policy]), 1, None)
            parts.append(part)
    finally:
        made.close()
    found = Experience(*(np.concatenate(column)[:, 0] for column in zip(*parts, strict=True)))
    places = np.concatenate([found.observation, found.next_observation[-1:]])
    return GoalEpisode(places, known_goal, bool(found.terminated[-1]), ended[0].decisions, ended[0].ret)


class Floor(NamedTuple):
    """The plan that paths are drawn on."""

    walls: Float[np.ndarray, "walls ends xy"]
    reach: float
    """how near to a goal counts as arrived; 0 where unknown"""


def floor(environment: str | EnvironmentConfig) -> Floor:
    """The floor plan of an environment that observes a place in the plane. Raises `LegatoError` for any other."""
    made = make(environment)
    name, shape, inner = made.name, made.observation_space.shape, made.unwrapped
    made.close()
    if shape != (2,):
        raise LegatoError(f"'{name}' observes no place in a plane, so there are no paths to draw")
    return Floor(np.asarray(getattr(inner, "walls", np.zeros((0, 2, 2)))), float(getattr(inner, "reach", 0.0)))
