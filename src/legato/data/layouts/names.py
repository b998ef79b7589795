"""Names of arrays, those of others and ours, and arrays under ours."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

Arrays = dict[str, np.ndarray]

# Our name first, then those of others. Of each line a file may have one.
ALIASES = {
    "observations": ("observations", "observation", "obs", "states"),
    "actions": ("actions", "action", "acts", "acs"),
    "rewards": ("rewards", "reward", "rews"),
    "next_observations": ("next_observations", "next_observation", "next_obs", "new_obs"),
}
TERMINAL = ("terminations", "terminals", "terminated", "is_terminal")  # the episode ended by itself
CUT = ("truncations", "timeouts", "truncated", "timeout")  # it was cut
DONE = ("dones", "done")  # either
LAST = ("episode_terminals", "is_last")  # the episode's last row, for whatever reason
FIRST = ("episode_starts", "is_first")  # its first
KEPT = ("offsets", "ends", "environment", "reference", "low", "high", "choices", "start")  # as we name them
SINGLE = (*TERMINAL, *CUT, *DONE, *LAST, *FIRST)
INDICES = ("indices", "terminal", "index", "offsets")
FLAT = tuple({*(name for names in ALIASES.values() for name in names), *SINGLE, *KEPT, *INDICES})

# Names that say how episodes end, which our own reader does not know: passing over them would join episodes.
OWN = {"terminations", "terminals", "truncations", "timeouts"}
FOREIGN_ENDS = {*SINGLE, "indices", "index"} - OWN


@dataclass
class Reading:
    """Arrays under our names, what was decided on the way, and the names that were not used."""

    arrays: Arrays
    decisions: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
