"""When a policy is asked and when its answer counts, and the seeds of episodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from legato.errors import LegatoError

Stream = Literal["train", "select", "test", "latency", "collect"]
_STREAMS: dict[Stream, int] = {"train": 0, "select": 1, "test": 2, "latency": 3, "collect": 4}


def episode_seed(seed: int, stream: Stream, episode: int) -> int:
    """The environment seed of an episode, from the run's seed and the episode's number.

    Training, checkpoint selection, testing and collecting draw from separate streams: none sees another's episodes.
    """
    return int(np.random.SeedSequence([seed, _STREAMS[stream], episode]).generate_state(1)[0] >> 1)


@dataclass(frozen=True)
class Clock:
    """When a policy is asked, and when its answer counts.

    every
        Primitive steps per decision; a pair `(low, high)` draws n uniformly anew at each decision.
    by
        Who says when the next decision is made: the clock, or the policy (`Policy.interval`), between `low` and `high`.
    delay
        Primitive steps between a decision's observation and its effect: meanwhile the old plan runs on, and of the new
        plan the actions meant for the steps already gone are skipped. The first plan of an episode is not delayed.
    observe
        Show the policy every primitive step, or only those at which it decides.
    """

    every: int | tuple[int, int] = 1
    delay: int = 0
    observe: Literal["every step", "decisions"] = "every step"
    by: Literal["clock", "policy"] = "clock"

    def __post_init__(self) -> None:
        low, high = self.interval
        if low < 1 or high < low:
            raise LegatoError(f"a decision interval needs 1 <= low <= high; {self.every} was given")
        if not 0 <= self.delay <= low:
            raise LegatoError(
                f"a delay of {self.delay} steps does not fit decisions every {low}: 0 <= delay <= interval is needed"
            )

    @property
    def interval(self) -> tuple[int, int]:
        return self.every if isinstance(self.every, tuple) else (self.every, self.every)

    @property
    def plan_length(self) -> int:
        """Actions that a plan must hold: the longest interval, and the delay during which it must run on."""
        return self.interval[1] + self.delay
