"""Normalised scores: 0 is what a random policy earns, 100 what an expert does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from legato.errors import LegatoError
from legato.evaluation.fas import family


@dataclass(frozen=True)
class NormalisationScores:
    """The returns that score 0 and 100. Raises LegatoError where the expert earns no more than the random policy."""

    random: float
    """undiscounted return of a random policy"""
    expert: float
    """undiscounted return of an expert policy"""
    source: str
    """who says so; scores by different sources do not compare"""

    def __post_init__(self) -> None:
        if not -np.inf < self.random < self.expert < np.inf:
            raise LegatoError(
                f"normalised scores need a random return below the expert's; {self.source} says "
                f"{self.random:g} and {self.expert:g}"
            )

    def score(self, returns: ArrayLike) -> NDArray[np.float64]:
        """100 (return - random) / (expert - random), of each return; nothing is clipped."""
        return 100 * (np.asarray(returns, np.float64) - self.random) / (self.expert - self.random)


# d4rl/infos.py of Farama-Foundation/D4RL: the same numbers for every version and quality of a task's data. Its mazes
# and its kitchen are left out: the tasks that Gymnasium has of these names are built anew. Adroit's rewards changed
# within gymnasium-robotics; Minari's own sets of those tasks bring other levels, which come first.
D4RL: dict[str, tuple[float, float]] = {
    "HalfCheetah": (-280.178953, 12135.0),
    "Hopper": (-20.272305, 3234.3),
    "Walker2d": (1.629008, 4592.3),
    "Ant": (-325.6, 3879.7),
    "AdroitHandPen": (96.262799, 3076.8331017826877),
    "AdroitHandHammer": (-274.856578, 12794.134825156867),
    "AdroitHandDoor": (-56.512833, 2880.5693087298737),
    "AdroitHandRelocate": (-6.425911, 4233.877797728884),
}


def normalisation_scores(environment_id: str, dataset: Sequence[float] | None = None) -> NormalisationScores | None:
    """The levels that the `dataset` brings, (random, expert); else D4RL's of `Name-vN`, whatever the version.

    None where neither knows any, and where the dataset's say nothing (the expert earns no more than chance). Names are
    read as `fas.reference` reads them.
    """
    if dataset is not None:
        random, expert = dataset
        return NormalisationScores(float(random), float(expert), "the dataset") if random < expert else None
    found = D4RL.get(family(environment_id))
    return None if found is None else NormalisationScores(*found, "D4RL")
