"""How far ahead a model foretells: the measure of Janner et al. 2021 (arXiv 2106.02039), section 4.1.

    sampled    many trajectories from one start (of an environment: from its resets)
    p_t,d      the share of samples with number d at step t in each of V equally wide bins, over the bin's width
    curve      mean over held-out trajectories s of  sum_d log p_t,d(s_t,d)                           in nats
    oracle     sum_d log(V / (max_d - min_d)): all mass in the right bin, which no model can exceed

One rule for all models, whether they know bins or densities: real numbers are counted in the bins of the ruler. A
token is a uniform density over its own bin, so a number is drawn from there; where model and ruler have the same bins
that changes nothing. One sample more, spread evenly over all bins, is counted for each model: so an empty bin has
1 / (V (n + 1)) of n samples. A sample outside the ruler lies in no bin; a reference outside gets what an empty bin has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from legato.algorithms.protocol import TrajectorySampler
from legato.data.masking import Mask
from legato.data.spec import Spec
from legato.data.tokens import Discretiser
from legato.data.trajectories import Trajectories
from legato.errors import LegatoError, escape_markup
from legato.models import ensemble
from legato.models.ensemble import Ensemble

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = (1, 5, 10, 20, 50, 100)  # steps in tables


@dataclass(frozen=True)
class Ruler:
    """The bins that everything is counted in: equally wide, from a column's least number to its greatest."""

    low: Float[np.ndarray, " obs"]
    high: Float[np.ndarray, " obs"]
    bins: int

    @classmethod
    def of(cls, observed: Discretiser) -> Ruler:
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
        return float(np.log(self.bins / (self.high - self.low)[self.moving]).sum())

    def place(self, x: Float[np.ndarray, "*batch obs"]) -> np.ndarray:
        """The bin of each number; -1 for one outside. The greatest number belongs to the last bin."""
        with np.errstate(invalid="ignore", divide="ignore"):
            at = (np.asarray(x, np.float64) - self.low) / (self.high - self.low) * self.bins
        # A number on its bin's edge may have been rounded across it.
        inside = (at >= -1e-3) & (at <= self.bins + 1e-3)
        return np.where(inside, np.clip(np.where(inside, at, 0), 0, self.bins - 1), -1).astype(np.int64)


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


def lasting(data: Trajectories, steps: int) -> Int[np.ndarray, " episodes"]:
    """The episodes of which `steps` steps are known, and the observation after them."""
    return np.flatnonzero(data.lengths + (data.ends is not None) > steps)


def references(
    data: Trajectories, steps: int, episodes: int | None = None
) -> Float32[np.ndarray, "episodes steps obs"]:
    """The observations 0 to `steps` of the first `episodes` that are so long.

    Raises `LegatoError` where no episode is.
    """
    long = lasting(data, steps)[:episodes]
    if len(long) == 0:
        raise LegatoError(f"no episode of {data.about.name} has {steps} steps; the longest has {data.lengths.max()}")
    found = []
    for i in long:
        states = data.observations[data.episode(int(i))]
        if data.ends is not None:
            states = np.concatenate([states, data.ends[i : i + 1]])
        found.append(states[: steps + 1])
    return np.stack(found).astype(np.float32)


def measure(label: str, samples: Samples, real: Float32[np.ndarray, "episodes steps obs"], ruler: Ruler) -> Prediction:
    """The curve of one model against real trajectories, both at steps 1 to T."""
    deviation = np.maximum(real.std(axis=(0, 1), dtype=np.float64), 1e-9)[ruler.moving]
    each = [likelihood(samples.states[:, t], real[:, t], ruler).mean() for t in range(real.shape[1])]
    known = ~np.isnan(samples.states)
    mean = np.where(known, samples.states, 0).sum(axis=0, dtype=np.float64) / np.maximum(known.sum(axis=0), 1)
    error = ((mean - real)[..., ruler.moving] / deviation) ** 2
    return Prediction(label, np.array(each), np.sqrt(error.mean(axis=(0, 2))), samples.alive)


def likelihood(
    samples: Float32[np.ndarray, "samples obs"], real: Float32[np.ndarray, "episodes obs"], ruler: Ruler
) -> Float[np.ndarray, " episodes"]:
    """sum_d log p_d of each real state under the marginals of the samples, in nats."""
    found, at = ruler.place(samples), ruler.place(real)
    width = (ruler.high - ruler.low) / ruler.bins
    total = np.zeros(len(real))
    for d in np.flatnonzero(ruler.moving):
        there = found[~np.isnan(samples[:, d]), d]
        count = np.append(np.bincount(there[there >= 0], minlength=ruler.bins), 0)  # -1 reads the last: nobody
        total += np.log((count[at[:, d]] + 1 / ruler.bins) / (len(there) + 1) / width[d])
    return total


# --- who foretells ---


def of_model(
    sampler: TrajectorySampler,
    starts: Float32[np.ndarray, "starts obs"],
    samples: int,
    steps: int,
    *,
    context: int | None = None,
    seed: int = 0,
    mask: Mask | None = None,
    on_samples: Callable[[int], None] = lambda done: None,
) -> Samples:
    """Sampled trajectories of a model; sample i begins at start i, round and round.

    `context` steps are read, the one being written included: by default all that the model was made to read, and 2
    for a Markovian one. With a `mask` starts are hidden too, and sampled marks are missing numbers. Raises
    `LegatoError` for a context that the model cannot read.
    """
    if context is not None and not 2 <= context <= sampler.window:
        raise LegatoError(f"the model reads 2 to {sampler.window} steps; a context of {context} was given")
    options = {"context": context, "seed": seed, "mask": mask, "on_samples": on_samples}
    return Samples(sampler(starts, samples, steps, **options))


@dataclass(frozen=True)
class Rival:
    """A probabilistic ensemble of the dynamics, and one of what the data's policy did: together they foretell alone,
    as the transformer does."""

    dynamics: Ensemble
    behaviour: Ensemble
    spec: Spec
    mask: Mask | None = None


def rival(
    data: Trajectories,
    spec: Spec,
    *,
    updates: int = 12_000,
    hidden: tuple[int, ...] = (200, 200, 200, 200),
    seed: int = 0,
    mask: Mask | None = None,
    on_updates: Callable[[int], None] = lambda done: None,
) -> Rival:
    """Fit both on the data; the behaviour takes as many updates again. Of hidden data, they are told by the `mask`
    which numbers are missing, and learn from those that are not."""
    k_dynamics, k_behaviour = jax.random.split(jax.random.key(seed))
    x, y = ensemble.transitions(data, mask=mask)
    dynamics, _ = ensemble.fit(x, y, hidden=hidden, updates=updates, key=k_dynamics, on_updates=on_updates)
    s = np.asarray(data.observations, np.float32)
    s = s if mask is None else np.asarray(mask.read(jnp.asarray(s)))
    behaviour, _ = ensemble.fit(
        s,
        np.asarray(data.actions, np.float32),
        hidden=hidden,
        updates=updates,
        key=k_behaviour,
        on_updates=lambda done: on_updates(updates + done),
    )
    return Rival(dynamics, behaviour, spec, mask)


def of_ensemble(
    rival: Rival,
    starts: Float32[np.ndarray, "starts obs"],
    samples: int,
    steps: int,
    *,
    seed: int = 0,
    mixed: bool = False,
    actions: Float32[np.ndarray, "starts steps act"] | None = None,
) -> Samples:
    """Sampled roll-outs of the ensemble; sample i begins at start i, round and round.

    Each keeps its member, or draws one at every step where they are `mixed`. What is done is drawn from the fitted
    behaviour or, where they are given, the `actions` that were done after each start.
    """
    index = np.arange(samples) % len(starts)
    given = None if actions is None else jnp.asarray(actions[index])
    low, high = jnp.asarray(rival.spec.low), jnp.asarray(rival.spec.high)

    @jax.jit
    def run(dynamics: Ensemble, behaviour: Ensemble, s: Array, key: Array) -> Array:
        k_member, k_run = jax.random.split(key)
        member = ensemble.draw_members(behaviour, samples, k_member)

        def act(seen: Array, t: Array, key: Array) -> Array:
            if given is not None:
                return given[:, t]
            x = seen if rival.mask is None else rival.mask.read(seen)
            return jnp.clip(ensemble.sample(behaviour, x, member, key), low, high)

        return ensemble.unroll(dynamics, act, s, steps, k_run, mixed=mixed, mask=rival.mask)

    return Samples(np.asarray(run(rival.dynamics, rival.behaviour, jnp.asarray(starts[index]), jax.random.key(seed))))


def of_data(data: Trajectories, steps: int, samples: int) -> Samples:
    """The data's own episodes in the place of samples: what a perfect model of as many samples would come to.

    Fewer where there are fewer that are so long.
    """
    return Samples(references(data, steps, samples)[:, 1:])


# --- what came of it ---


@dataclass(frozen=True)
class Foretold:
    """What came of one command: a model, and what it is held against."""

    environment: str | None
    predictions: tuple[Prediction, ...]
    oracle: float
    episodes: int
    """real trajectories that were held against"""
    samples: int
    held_out: bool
    """were the real ones of another set than the models learnt from?"""

    @property
    def steps(self) -> int:
        return len(self.predictions[0].likelihood)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, for a file."""
        body = dataclasses.asdict(self)
        for prediction in body["predictions"]:
            prediction |= {k: v.tolist() for k, v in prediction.items() if isinstance(v, np.ndarray)}
        return body


def shown(steps: int) -> list[int]:
    """The steps that a table names."""
    return sorted({step for step in (*SHOWN, steps) if step <= steps})


def table(foretold: Foretold) -> Table:
    """A rich table: log-likelihood at several steps ahead, then errors, a row for each model."""
    from rich.table import Table

    real = "held-out episodes" if foretold.held_out else "episodes, of those that were learnt from"
    where = escape_markup(foretold.environment or "steps ahead")
    result = Table(
        title=f"{where} · {foretold.samples} samples · {foretold.episodes} {real}",
        caption=f"log-likelihood in nats; bins allow {foretold.oracle:.1f} at most. error: of the mean, in deviations",
        title_style="bold",
        caption_style="dim",
    )
    steps = shown(foretold.steps)
    result.add_column("steps ahead", style="bold", no_wrap=True)
    for step in steps:
        result.add_column(str(step), justify="right")
    for p in foretold.predictions:
        result.add_row(p.label, *(f"{p.likelihood[step - 1]:.1f}" for step in steps))
    for p in foretold.predictions:
        result.add_row(f"error: {p.label}", *(f"{p.error[step - 1]:.2f}" for step in steps), style="dim")
    for p in foretold.predictions:
        if p.alive[-1] < 1:
            result.add_row(f"not ended, %: {p.label}", *(f"{100 * p.alive[t - 1]:.0f}" for t in steps), style="dim")
    return result
