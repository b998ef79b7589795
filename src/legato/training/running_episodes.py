"""Episodes that are still running, by member, and whole ones padded to few lengths."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import ModuleType
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from legato.data.recurrent_replay import Episode
from legato.data.spec import Spec
from legato.rollout import Experience

SHORTEST = 64  # rows of the shortest padding that an episode is put into a replay with
FIELDS = ("observation", "action", "reward", "next_observation")


class RunningEpisodes:
    """The steps of each member's episode so far, and the return that it was asked for."""

    def __init__(self, members: int, seeds: int, spec: Spec):
        self.rows: list[list[tuple[np.ndarray, ...]]] = [[] for _ in range(members)]
        self.targets = np.zeros(members, np.float32)
        self.seeds, self.spec = seeds, spec

    def add(self, experience: Experience, asked: np.ndarray) -> list[list[Episode]]:
        """The episodes that ended, by seed; `asked` are the targets `[members]` of those that begin."""
        done: list[list[Episode]] = [[] for _ in range(self.seeds)]
        each = len(self.rows) // self.seeds
        fields = [getattr(experience, name) for name in FIELDS]
        for t in range(len(experience.reward)):
            for member, rows in enumerate(self.rows):
                if not rows:
                    self.targets[member] = asked[member]
                rows.append(tuple(field[t, member] for field in fields))
                terminated = bool(experience.terminated[t, member])
                if terminated or experience.truncated[t, member]:
                    target = float(self.targets[member])
                    done[member // each].append(padded_episode(rows, self.spec, target, terminated=terminated))
                    self.rows[member] = []
        return done

    def state(self) -> dict[str, np.ndarray]:
        """The steps of all members, one after another, and how many each has."""
        rows = [row for of_member in self.rows for row in of_member]
        fields = zip(*rows, strict=True) if rows else ([] for _ in FIELDS)
        found = {name: np.array(field, np.float32) for name, field in zip(FIELDS, fields, strict=True)}
        return {"lengths": np.array([len(of_member) for of_member in self.rows]), **found}

    def restore(self, state: dict[str, np.ndarray], targets: np.ndarray, fresh: bool) -> None:
        """The inverse of `state`; `fresh` leaves the episodes out."""
        self.targets = targets.copy()
        ends, lengths = np.cumsum(state["lengths"]), state["lengths"] * (not fresh)
        for member, (end, length) in enumerate(zip(ends, lengths, strict=True)):
            self.rows[member] = [tuple(state[name][t] for name in FIELDS) for t in range(end - length, end)]


def padded_episode(
    rows: list[tuple[np.ndarray, ...]], spec: Spec, asked: float, length: int | None = None, terminated: bool = False
) -> Episode:
    """An episode from its steps, in host memory; no steps are no episode."""
    steps = len(rows)
    length = length or max(SHORTEST, 1 << steps.bit_length())  # a power of two above T: few shapes are compiled
    observations = np.zeros((length, spec.observation_size), np.float32)
    actions = np.zeros((length, spec.action_size), np.float32)
    rewards = np.zeros(length, np.float32)
    for t, (observation, action, reward, _) in enumerate(rows):
        observations[t], actions[t], rewards[t] = observation, action, reward
    if steps:
        observations[steps] = rows[-1][3]
    fields: tuple[Any, ...] = (np.int32(steps), np.bool_(terminated), np.float32(asked))
    return Episode(observations, actions, rewards, *fields)  # type: ignore[arg-type]


def side_by_side(episodes: Sequence[Episode | None], spec: Spec) -> Episode:
    """An episode of every seed in as many rows, or none of a seed, in host memory."""
    rows = max((len(episode.rewards) for episode in episodes if episode is not None), default=SHORTEST)
    nothing = padded_episode([], spec, 0.0, rows)
    padded = [nothing if episode is None else with_padding(episode, rows) for episode in episodes]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *padded)


def with_padding(episode: Episode, rows: int) -> Episode:
    """With more padding."""
    more = rows - len(episode.rewards)
    if not more:
        return episode
    arrays = (np.asarray(array) for array in (episode.observations, episode.actions, episode.rewards))
    wider = (np.concatenate([array, np.zeros((more, *array.shape[1:]), array.dtype)]) for array in arrays)
    return Episode(*wider, episode.steps, episode.terminated, episode.target)  # type: ignore[arg-type]


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=(3,))
def put_episodes(
    module: ModuleType, tuning: Any, learner: Any, replay: Any, episode: Episode
) -> tuple[Any, dict[str, Float[Array, " seeds"]]]:
    """An episode of every seed into its replay."""
    return jax.vmap(partial(module.add, tuning))(learner, replay, episode)
