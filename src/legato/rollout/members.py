"""The state of a rollout's members."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Members:
    """The state of the members, as arrays `[members, ...]` in host memory."""

    observation: np.ndarray
    reward: np.ndarray
    executed: np.ndarray
    first: np.ndarray
    active: np.ndarray
    episode: np.ndarray  # the running episode's number
    clock: np.ndarray  # primitive steps since the episode began
    due: np.ndarray  # the clock at which the policy is asked next
    decisions: np.ndarray
    plan: np.ndarray  # [members, length, act] in execution
    cursor: np.ndarray
    pending: np.ndarray  # [members, length, act] decided, not yet in effect
    pending_at: np.ndarray  # the clock at which it takes effect; -1 for none
    ret: np.ndarray
    actions: list[list[np.ndarray]] = field(default_factory=list)  # of the running episode, to replay it
