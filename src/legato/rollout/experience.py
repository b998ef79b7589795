"""What happened in a rollout, step by step and episode by episode."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from legato.data.replay import pack
from legato.data.trajectories import About, Trajectories, from_members


class Experience(NamedTuple):
    """What happened, `[steps, members, ...]` in host memory; members that were idle have `active` False."""

    observation: np.ndarray
    action: np.ndarray
    previous_action: np.ndarray
    reward: np.ndarray
    next_observation: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    plan_begins: np.ndarray  # did a new plan take effect at this step?
    plan_ends: np.ndarray  # is the next step one of another plan, or of another episode?
    active: np.ndarray

    def rows(self) -> np.ndarray:
        """One packed replay row per primitive step, `[steps, members, width]`."""
        continues = 1.0 - self.terminated
        return pack(self.observation, self.action, self.previous_action, self.reward, self.next_observation, continues)


class Episode(NamedTuple):
    """One finished episode."""

    member: int
    number: int
    ret: float  # undiscounted return
    length: int  # primitive steps
    decisions: int


def to_trajectories(experience: Experience, about: About, steps: int | None = None) -> Trajectories:
    """The episodes in an experience, member after member; the last one of each counts as truncated where it is cut.

    Of members side by side only the first `steps` primitive steps are kept, in the order in which they were made.
    """
    rows = np.flatnonzero(experience.active)[:steps]  # step after step, at each one member after member

    def flat(array: np.ndarray) -> np.ndarray:
        return array.reshape(-1, *array.shape[2:])[rows]

    return from_members(
        rows % experience.active.shape[1],
        flat(experience.observation),
        flat(experience.action),
        flat(experience.reward),
        flat(experience.next_observation),
        flat(experience.terminated),
        flat(experience.truncated),
        about,
    )
