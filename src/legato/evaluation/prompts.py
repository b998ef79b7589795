"""Sweeps over the return that is asked for: does a policy earn more when it is asked for more?

Episodes are greedy and begin alike at every asked return, as the points of a sweep over the clock do (`sweeps`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from legato.data.dataset_statistics import DECILES, DatasetStatistics
from legato.data.spec import Spec
from legato.envs import Environments
from legato.errors import LegatoError
from legato.evaluation.statistics import Interval, bootstrap
from legato.policy import Policy
from legato.rollout import Clock, episodes

SHOWN = (10, 30, 50, 70, 90, 100)  # per cent: the deciles that are asked for unless somebody says which


@dataclass(frozen=True)
class Prompts:
    """Returns achieved at each return asked for, deciding as in training."""

    asked: tuple[float, ...]
    """strictly increasing"""
    returns: np.ndarray  # [seeds, asked, episodes], undiscounted
    target: float
    """the policies' default target"""
    data: tuple[float, float]
    """lowest and highest return in the data that they learnt from"""

    @property
    def means(self) -> np.ndarray:
        """`[seeds, asked]`."""
        return self.returns.mean(axis=-1)

    def at(self, asked: float) -> Interval:
        """Mean return achieved when this one was asked for, with its interval over seeds."""
        if asked not in self.asked:
            raise LegatoError(
                f"a return of {asked:g} was not asked for; the sweep has {', '.join(f'{x:g}' for x in self.asked)}"
            )
        return bootstrap(self.means[:, self.asked.index(asked)])

    def supports(self, asked: float) -> bool:
        """Does it lie among the data's returns?"""
        return self.data[0] <= asked <= self.data[1]


def statistics_of(policy: Policy[Any]) -> DatasetStatistics:
    """What a policy keeps of its data. Raises LegatoError where it keeps nothing."""
    leaves = jax.tree.leaves(policy, is_leaf=lambda node: isinstance(node, DatasetStatistics))
    for leaf in leaves:
        if isinstance(leaf, DatasetStatistics):
            return leaf
    raise LegatoError(f"a policy of kind {type(policy).__name__} keeps nothing of its data and reads no target")


def supported_returns(known: DatasetStatistics) -> tuple[float, float]:
    """The lowest and the highest return in the data."""
    return float(known.deciles[0]), float(known.deciles[-1])


def to_ask(known: DatasetStatistics, targets: Sequence[float] | None = None) -> tuple[float, ...]:
    """The `targets`, sorted, each once; without them the data's deciles (SHOWN) and the policy's own target.

    Raises LegatoError for targets that are not finite.
    """
    if not targets:
        targets = [float(known.deciles[DECILES.index(d)]) for d in SHOWN] + [float(known.target)]
    for target in targets:
        if not np.isfinite(target):
            raise LegatoError(f"a target return must be finite; {target} was given")
    return tuple(sorted({float(target) for target in targets}))


def sweep(
    policies: Policy[Any],
    environments: Environments,
    spec: Spec,
    seeds: Sequence[int],
    asked: Sequence[float],
    clock: Clock,
    *,
    on_point: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """Returns `[seeds, asked, episodes]` of every policy at every asked return; `on_point(done)` is called after each.

    `policies` is stacked over seeds and `environments` holds `seeds x episodes` members. An asked return is an input of
    what is compiled: any number of them compiles once.
    """
    returns = []
    for done, target in enumerate(asked, start=1):
        found = episodes(policies, environments, spec, clock, list(seeds), "test", command=float(target))
        returns.append(found)
        on_point(done)
    return np.stack(returns, axis=1)
