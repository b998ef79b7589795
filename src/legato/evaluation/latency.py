"""What a decision costs: wall time of one call as a user makes it, NumPy in, NumPy out, batch 1; and what memory."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from jaxtyping import PyTree

from legato.data.spec import Spec
from legato.player import Player


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
    observations = random_observations(rng, player.spec, warmup + calls)
    memory = player.begin()
    seconds = np.empty(len(observations))
    for i, observation in enumerate(observations):
        before = time.perf_counter()
        _, memory = player.act(memory, observation, length)
        seconds[i] = time.perf_counter() - before
    ms = 1000 * seconds[warmup:]
    return Latency(length, float(ms.mean()), float(np.median(ms)), float(np.percentile(ms, 99)))


@dataclass(frozen=True)
class Stretch:
    """Milliseconds per action from step `first` to step `last` of an episode, both included and counted from 1."""

    first: int
    last: int
    mean: float
    p50: float
    p99: float


@dataclass(frozen=True, eq=False)
class History:
    """What acting costs as an episode grows, one primitive action per decision."""

    ms: np.ndarray  # [episodes, steps]
    memory: int
    """bytes that the policy carries per environment"""

    def stretches(self, size: int = 100) -> list[Stretch]:
        """Times of all episodes in stretches of so many steps; the last one may be shorter."""
        found = []
        for begin in range(0, self.ms.shape[1], size):
            ms = self.ms[:, begin : begin + size]
            p50, p99 = np.percentile(ms, (50, 99))
            found.append(Stretch(begin + 1, begin + ms.shape[1], float(ms.mean()), float(p50), float(p99)))
        return found

    def medians(self, size: int = 100) -> np.ndarray:
        """`[episodes, stretches]`, milliseconds."""
        begins = range(0, self.ms.shape[1], size)
        return np.stack([np.median(self.ms[:, begin : begin + size], axis=1) for begin in begins], axis=1)


def history(
    player: Player, *, steps: int = 1000, episodes: int = 3, warmup: int = 100, command: PyTree = ()
) -> History:
    """Time every action of whole episodes of random observations, memory carried from each step to the next.

    Before them, `warmup` steps of an episode are played that is not timed.
    """
    rng = np.random.default_rng(0)
    observations = random_observations(rng, player.spec, steps)
    memory = player.begin(command)
    carried = sum(int(leaf.nbytes) for leaf in memory.state)
    for i in range(warmup):
        _, memory = player.act(memory, observations[i % steps])
    seconds = np.empty((episodes, steps))
    for episode in seconds:
        memory = player.begin(command)
        for i, observation in enumerate(observations):
            before = time.perf_counter()
            _, memory = player.act(memory, observation)
            episode[i] = time.perf_counter() - before
    return History(1000 * seconds, carried)


def random_observations(rng: np.random.Generator, spec: Spec, steps: int) -> np.ndarray:
    """Observations `[steps, obs]` that mean nothing: standard normal numbers, or bytes for images."""
    if spec.images:
        return rng.integers(256, size=(steps, spec.observation_size), dtype=np.uint8)
    return rng.standard_normal((steps, spec.observation_size)).astype(np.float32)
