"""A replay of whole episodes with the returns that they earned, which begins with the best of the logs.

For fine-tuners that sample windows or episodes: they name this module `replay`.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from legato.data import episode_replay
from legato.data import trajectories as logs
from legato.data.episode_replay import EpisodeReplay
from legato.data.recurrent_replay import Episode
from legato.data.spec import Spec
from legato.data.trajectories import Trajectories


@runtime_checkable
class Config(Protocol):
    """What the replay asks of hyper-parameters."""

    @property
    def episodes(self) -> int:
        """whole episodes that it keeps"""
        ...


SMALLER = "lower episodes"


def size(config: Config, base: Any, spec: Spec, capacity: int, longest: int) -> tuple[int, int]:
    """The rows of the replay, and how many numbers it keeps of each."""
    return config.episodes * longest, episode_replay.width(spec)


def create(config: Config, base: Any, spec: Spec, capacity: int, longest: int) -> EpisodeReplay:
    """An empty replay; `capacity` is not used."""
    return episode_replay.create(spec, config.episodes, longest)


def initial_episodes(episodes: int, data: Trajectories, *, every_return: bool = False) -> Int[np.ndarray, " episodes"]:
    """Which logged episodes the replay begins with, in the order in which they go in, and are the first to go.

    The best ones, or as many of `every_return`.
    """
    rising = np.argsort(logs.returns(data), kind="stable")
    if every_return:
        count = min(episodes, len(rising))
        return rising[np.linspace(0, len(rising) - 1, count).astype(int)]
    return rising[-episodes:]


def add(
    config: Config, learner: Any, replay: EpisodeReplay, episode: Episode
) -> tuple[EpisodeReplay, dict[str, Float[Array, ""]]]:
    """Put an episode into the replay, with the returns that it earned."""
    return episode_replay.add(replay, episode, learner.base.gamma), {}


def state(replay: EpisodeReplay) -> dict[str, np.ndarray]:
    """The replays of all seeds."""
    return {str(i): np.array(leaf) for i, leaf in enumerate(jax.tree.leaves(replay))}


def restore(replay: EpisodeReplay, state: dict[str, np.ndarray]) -> EpisodeReplay:
    """The inverse of `state`."""
    leaves, structure = jax.tree.flatten(replay)
    return jax.tree.unflatten(structure, [jnp.asarray(state[str(i)]) for i in range(len(leaves))])
