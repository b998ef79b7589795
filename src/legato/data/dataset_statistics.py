"""Statistics of a dataset that its policies keep: units of observations, actions and returns, and target returns."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from legato.data import normaliser as normalisers
from legato.data import sets
from legato.data import trajectories as logs
from legato.data.normaliser import Normaliser
from legato.data.spec import Spec
from legato.data.trajectories import Trajectories
from legato.errors import LegatoWarning

DECILES = tuple(range(0, 101, 10))
NEAREST = 10  # episodes that are looked at beside a start
SMALL = 0.1  # of half the bounds: actions that deviate less are learnt in units of their deviation
Units = Literal["bounds", "deviation"]
BEST = 0.1  # of the steps: what the default target return is the mean of


class DatasetStatistics(eqx.Module):
    """Statistics of a dataset. They are numbers of the policy, but no gradient changes them."""

    normaliser: Normaliser
    scale: Float[Array, ""]
    """returns-to-go are divided by this"""
    target: Float[Array, ""]
    """the default target return: the mean of the best episodes that hold a tenth of the steps"""
    deciles: Float[Array, " 11"]
    """of the episodes' returns, from the lowest to the highest"""
    spec: Spec = eqx.field(static=True)
    actions: Normaliser | None = None
    """mean and deviation of the actions, in whose units they are learnt; None: in units of their bounds"""

    @classmethod
    def identity(cls, spec: Spec, units: str = "bounds") -> DatasetStatistics:
        """Without data: the identity."""
        zeros = jnp.zeros(len(DECILES))
        actions = normalisers.none(spec.action_size) if units == "deviation" and spec.choices is None else None
        normaliser = normalisers.of_bytes() if spec.images else normalisers.none(spec.observation_size)
        return cls(normaliser, jnp.ones(()), jnp.zeros(()), zeros, spec, actions)

    def scale_return(self, returns: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """Returns-to-go as a network reads them."""
        return returns / jax.lax.stop_gradient(self.scale)

    def normalise_actions(
        self, actions: Float[Array, "*batch act"] | Int[Array, "*batch"]
    ) -> Float[Array, "*batch act"] | Int[Array, "*batch"]:
        """Actions in units of their bounds, [-1, 1], or of their deviation in the data; choices as they are.

        0 where the bounds are equal, or the data's actions all the same.
        """
        return self.spec.normalise(actions) if self.actions is None else self.actions(actions)

    def denormalise_actions(self, units: Float[Array, "*batch act"]) -> Float[Array, "*batch act"]:
        """The inverse of `normalise_actions`: actions in the environment's units."""
        if self.actions is None:
            return self.spec.denormalise(units)
        mean, deviation = jax.lax.stop_gradient((self.actions.mean, self.actions.deviation))
        return mean + deviation * units

    def squash(self, given: Float[Array, "*batch act"]) -> Float[Array, "*batch act"]:
        """A network's output as an action in these units: tanh(given), or of units without bounds the output itself."""
        return jnp.tanh(given) if self.actions is None else given

    def clip_actions(self, actions: Float[Array, "*batch act"]) -> Float[Array, "*batch act"]:
        """Actions in these units, clipped to their bounds."""
        if self.actions is None:
            return jnp.clip(actions, -1, 1)
        return jnp.clip(actions, *map(self.actions, self.spec.bounds()))

    def normalise_executed(
        self, action: Float[Array, "*batch act"]
    ) -> Float[Array, "*batch act"] | Int[Array, "*batch"]:
        """An executed action, in the environment's units, as `normalise_actions` gives logged ones."""
        if self.spec.choices is None:
            return self.normalise_actions(action)
        return jnp.rint(action[..., 0]).astype(jnp.int32)

    def to_action(
        self, given: Float[Array, " act"], key: PRNGKeyArray | None, *, squash: bool = True
    ) -> Float[Array, " act"]:
        """What a network's output stands for, in the environment's units: `squash(given)` or, of logits, the choice.

        A choice is the likeliest, or drawn where there is a key; a continuous action has no spread to draw from.
        """
        if self.spec.choices is not None:
            choice = jnp.argmax(given) if key is None else jax.random.categorical(key, given)
            return choice[None].astype(jnp.float32)
        return self.denormalise_actions(self.clip_actions(self.squash(given) if squash else given))


def units_of(data: Trajectories, spec: Spec) -> Units:
    """Which units an algorithm learns the data's actions in that leaves this open.

    Those of their deviation where this is less than `SMALL` of half the bounds: a network that is to tell such actions
    apart in units of their bounds learns slowly.
    """
    if spec.choices is not None:
        return "bounds"
    half = (np.array(spec.high) - np.array(spec.low)) / 2
    deviation = np.asarray(normalisers.of(data.actions).deviation)
    moves = (half > 0) & (np.ptp(data.actions, axis=0) > 0)
    return "deviation" if (deviation[moves] < SMALL * half[moves]).any() else "bounds"


def of(
    data: Trajectories, spec: Spec, *, gamma: float = 1.0, scale: float = 0.0, units: str = "bounds"
) -> DatasetStatistics:
    """The statistics of a dataset. A `scale` of 0 stands for the root mean square of its returns-to-go."""
    normaliser = normalisers.of(data.observations)
    actions = normalisers.of(data.actions) if units == "deviation" and spec.choices is None else None
    if data.rewards is None:
        none = DatasetStatistics.identity(spec)
        return DatasetStatistics(normaliser, none.scale, none.target, none.deciles, spec, actions)
    if not scale:
        togo = logs.returns_to_go(data, gamma).astype(np.float64)
        scale = float(np.sqrt(np.mean(togo**2))) or 1.0
    found = support(data, gamma=gamma)
    deciles = jnp.asarray([found.deciles[d] for d in DECILES], jnp.float32)
    divisor, target = jnp.asarray(scale, jnp.float32), jnp.asarray(found.target, jnp.float32)
    return DatasetStatistics(normaliser, divisor, target, deciles, spec, actions)


def warn_of_targets(asked: Sequence[float], low: float, high: float) -> None:
    """Warn of target returns outside the returns of the data."""
    if outside := [f"{target:g}" for target in asked if not low <= target <= high]:
        text = f"asked for {', '.join(outside)}, outside the returns of the data, {low:g} to {high:g}"
        warnings.warn(LegatoWarning(text), stacklevel=2)


@dataclass(frozen=True)
class Support:
    """Which returns a dataset holds, and so which can be asked of what learnt from it."""

    deciles: dict[int, float]
    """by per cent, 0 the lowest and 100 the highest"""
    target: float
    """the mean return of the best episodes that hold a tenth of the steps"""
    near: np.ndarray | None = None
    """`[starts, 3]`: lowest, middle and highest return of the episodes that began nearest to each start"""


def support(
    data: Trajectories,
    starts: Float[np.ndarray, "starts obs"] | None = None,
    nearest: int = NEAREST,
    gamma: float = 1.0,
) -> Support:
    """The returns in the data, overall and of the episodes that began nearest to each of `starts` (in deviations).

    They are discounted by `gamma`, as what is asked of a policy that learnt discounted returns-to-go; which episodes
    are the best is judged without.

    Raises `LegatoError` where there are no rewards.
    """
    earned = logs.returns(data, gamma)
    best = logs.returns(sets.top(data, BEST), gamma)
    near = None
    if starts is not None:
        from scipy.spatial import KDTree

        begun = data.observations[data.offsets[:-1]].astype(np.float32)
        with np.errstate(over="ignore"):  # of squares that float32 has no place for
            spread = begun.std(axis=0)
        spread = spread if np.isfinite(spread).all() else begun.std(axis=0, dtype=np.float64)
        spread = np.where(normalisers.is_constant(begun.mean(axis=0), spread), 1, spread + 1e-6).astype(spread.dtype)
        _, index = KDTree(begun / spread).query(np.asarray(starts) / spread, k=min(nearest, len(earned)))
        near = np.percentile(earned[np.reshape(index, (len(starts), -1))], (0, 50, 100), axis=1).T
    deciles = dict(zip(DECILES, np.percentile(earned, DECILES).tolist(), strict=True))
    return Support(deciles, float(best.mean()), near)
