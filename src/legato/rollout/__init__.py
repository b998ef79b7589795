"""Policy + environments + clock -> experience: the one place where time lives.

The rollout decides when a policy is asked (every n primitive steps, or at random intervals), when its answer takes
effect (d steps late), and what it observes in between. No algorithm and no environment wrapper knows of this. The same
code collects for training and evaluates.
"""

from __future__ import annotations

from legato.rollout.clock import Clock, Stream, episode_seed
from legato.rollout.compiled import stack
from legato.rollout.experience import Episode, Experience, to_trajectories
from legato.rollout.rollout import Rollout, episodes

__all__ = [
    "Clock",
    "Episode",
    "Experience",
    "Rollout",
    "Stream",
    "episode_seed",
    "episodes",
    "stack",
    "to_trajectories",
]
