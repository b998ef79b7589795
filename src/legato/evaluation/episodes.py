"""One greedy test episode of a policy, filmed or not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from legato.data.spec import Spec
from legato.envs.construction import EnvironmentConfig, make
from legato.envs.environments import GymnasiumEnvironments
from legato.errors import LegatoError
from legato.evaluation.video import check_film, make_rendering, picture_of, write_film
from legato.policy import Policy
from legato.rollout import Clock, Rollout, stack


class PlayedEpisode(NamedTuple):
    """How one episode went."""

    episode_return: float
    """undiscounted"""
    steps: int
    """primitive steps"""
    decisions: int


def play_episode(
    policy: Policy[Any],
    environment: str | EnvironmentConfig,
    spec: Spec,
    clock: Clock,
    seed: int,
    episode: int = 0,
    video: Path | None = None,
    command: Any = (),
    at_end: Callable[[Any], None] | None = None,
) -> PlayedEpisode:
    """Play one greedy test episode; film it when `video` is given.

    `command` is what the policy is asked for, and `at_end` is shown the environment when the episode is over.

    Raises `LegatoError` for a video of unknown format, one that exists already, or one whose writer is not installed,
    and for an environment that draws no pictures.
    """
    if episode < 0:
        raise LegatoError(f"episodes are numbered from 0; {episode} was given")
    if video is not None:
        check_film(video)
    made = make(environment) if video is None else make_rendering(environment)
    environments = GymnasiumEnvironments(made.name, [made])
    rollout = Rollout(environments, spec, clock, [seed], "test", once=True, command=command, first_episode=episode)
    frames, ended = [], []
    while not ended:
        _, ended = rollout.run(stack([policy]), 1, None)
        if video is not None:
            frames.append(picture_of(made, made.name))
    rollout.warn(policy)
    if at_end is not None:
        at_end(made)
    fps = made.metadata.get("render_fps", 30)
    environments.close()
    if video is not None:
        write_film(video, frames, fps)
    return PlayedEpisode(ended[0].ret, ended[0].length, ended[0].decisions)
