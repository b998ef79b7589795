"""How far ahead a model predicts: the measure of Janner et al. 2021 (arXiv 2106.02039), section 4.1.

    sampled    many trajectories from one start (of an environment: from its resets)
    p_t,d      the share of samples with number d at step t in each of V equally wide bins, over the bin's width
    curve      mean over held-out trajectories s of  sum_d log p_t,d(s_t,d)                           in nats
    oracle     sum_d log(V / (max_d - min_d)): all mass in the right bin, which no model can exceed

One rule for all models, whether they know bins or densities: real numbers are counted in shared bins. A token is a
uniform density over its own bin, so a number is drawn from there; where the model has the same bins that changes
nothing. One sample more, spread evenly over all bins, is counted for each model: so an empty bin has
1 / (V (n + 1)) of n samples. A sample outside all bins is not counted; a reference outside gets what an empty bin has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int

from legato.data.tokens import Discretiser
from legato.data.trajectories import Trajectories
from legato.errors import LegatoError


@dataclass(frozen=True)
class HistogramBins:
    """The bins that everything is counted in: equally wide, from a column's least number to its greatest."""

    low: Float[np.ndarray, " obs"]
    high: Float[np.ndarray, " obs"]
    count: int

    @classmethod
    def of(cls, observed: Discretiser) -> HistogramBins:
        """Over the range of the data that a discretiser was made from."""
        edges = np.asarray(observed.edges, np.float64)
        return cls(edges[:, 0], edges[:, -1], observed.bins)

    @property
    def moving(self) -> np.ndarray:
        """Which columns are measured: all that are not constant."""
        return self.high > self.low

    @property
    def oracle(self) -> float:
        """The log-density of a model that puts all mass into the right bins."""
        return float(np.log(self.count / (self.high - self.low)[self.moving]).sum())

    def place(self, x: Float[np.ndarray, "*batch obs"]) -> np.ndarray:
        """The bin of each number; -1 for one outside. The greatest number belongs to the last bin."""
        with np.errstate(invalid="ignore", divide="ignore"):
            at = (np.asarray(x, np.float64) - self.low) / (self.high - self.low) * self.count
        # A number on its bin's edge may have been rounded across it.
        inside = (at >= -1e-3) & (at <= self.count + 1e-3)
        return np.where(inside, np.clip(np.where(inside, at, 0), 0, self.count - 1), -1).astype(np.int64)


@dataclass(frozen=True)
class Samples:
    """Trajectories of a model, steps 1 to T. NaN stands for what is missing and for steps after an end."""

    states: Float32[np.ndarray, "samples steps obs"]

    @property
    def alive(self) -> Float[np.ndarray, " steps"]:
        """The share of trajectories that go on at each step; a step at which all is missing counts as gone."""
        return (~np.isnan(self.states)).any(axis=-1).mean(axis=0)


@dataclass(frozen=True)
class Prediction:
    """What came of one model."""

    label: str
    likelihood: Float[np.ndarray, " steps"]
    """mean log-likelihood of the references, nats, at steps 1 to T"""
    error: Float[np.ndarray, " steps"]
    """root mean square difference of the samples' mean and the references, in the references' deviations"""
    alive: Float[np.ndarray, " steps"]
    """share of samples that have not ended"""


def at_least(data: Trajectories, steps: int) -> Int[np.ndarray, " episodes"]:
    """The episodes of which `steps` steps are known, and the observation after them."""
    return np.flatnonzero(data.lengths + (data.final_observations is not None) > steps)


def references(
    data: Trajectories, steps: int, episodes: int | None = None
) -> Float32[np.ndarray, "episodes steps obs"]:
    """The observations 0 to `steps` of the first `episodes` that are so long.

    Raises `LegatoError` where no episode is.
    """
    long = at_least(data, steps)[:episodes]
    if len(long) == 0:
        raise LegatoError(f"no episode of {data.about.name} has {steps} steps; the longest has {data.lengths.max()}")
    found = []
    for i in long:
        states = data.observations[data.episode(int(i))]
        if data.final_observations is not None:
            states = np.concatenate([states, data.final_observations[i : i + 1]])
        found.append(states[: steps + 1])
    return np.stack(found).astype(np.float32)


def measure(
    label: str, samples: Samples, real: Float32[np.ndarray, "episodes steps obs"], bins: HistogramBins
) -> Prediction:
    """The curve of one model against real trajectories, both at steps 1 to T."""
    deviation = np.maximum(real.std(axis=(0, 1), dtype=np.float64), 1e-9)[bins.moving]
    each = [likelihood(samples.states[:, t], real[:, t], bins).mean() for t in range(real.shape[1])]
    known = ~np.isnan(samples.states)
    mean = np.where(known, samples.states, 0).sum(axis=0, dtype=np.float64) / np.maximum(known.sum(axis=0), 1)
    error = ((mean - real)[..., bins.moving] / deviation) ** 2
    return Prediction(label, np.array(each), np.sqrt(error.mean(axis=(0, 2))), samples.alive)


def likelihood(
    samples: Float32[np.ndarray, "samples obs"], real: Float32[np.ndarray, "episodes obs"], bins: HistogramBins
) -> Float[np.ndarray, " episodes"]:
    """sum_d log p_d of each real state under the marginals of the samples, in nats."""
    found, at = bins.place(samples), bins.place(real)
    width = (bins.high - bins.low) / bins.count
    total = np.zeros(len(real))
    for d in np.flatnonzero(bins.moving):
        there = found[~np.isnan(samples[:, d]), d]
        count = np.append(np.bincount(there[there >= 0], minlength=bins.count), 0)  # index -1 is an empty bin
        total += np.log((count[at[:, d]] + 1 / bins.count) / (len(there) + 1) / width[d])
    return total
