"""What a decision costs: wall time of one call as a user makes it, NumPy in, NumPy out, batch 1."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from legato.policy import Player


@dataclass(frozen=True)
class Latency:
    """Milliseconds per decision of `length` primitive actions, on the machine that measured it."""

    length: int
    mean: float
    p50: float
    p99: float

    @property
    def per_action(self) -> float:
        """Milliseconds per primitive action, at the median."""
        return self.p50 / self.length


def latency(player: Player, length: int, *, calls: int = 1000, warmup: int = 100) -> Latency:
    """Time `calls` decisions of `length` actions, memory carried from each to the next."""
    rng = np.random.default_rng(0)
    observations = rng.standard_normal((warmup + calls, player.spec.observation_size)).astype(np.float32)
    memory = player.begin()
    seconds = np.empty(len(observations))
    for i, observation in enumerate(observations):
        before = time.perf_counter()
        _, memory = player.act(memory, observation, length)
        seconds[i] = time.perf_counter() - before
    ms = 1000 * seconds[warmup:]
    return Latency(length, float(ms.mean()), float(np.median(ms)), float(np.percentile(ms, 99)))
