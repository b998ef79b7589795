"""How little an ensemble knows of a step, and what an imagined reward loses by it.

    max_aleatoric   max_k |sigma_k(s, a)|                  the largest spread that a member predicts (Yu et al. 2020)
    max_pairwise    max_jk |mu_j(s, a) - mu_k(s, a)|       how far two members are apart at most
    ensemble_std    |deviation over k of mu_k(s, a)|       how far they are apart altogether (Lu et al. 2022)

Norms are over all that the ensemble predicts, the reward included, and maxima over all members, elites or not. MOPO
(Yu et al. 2020, arXiv 2005.13239) takes lambda u(s, a) from a reward: in raw units, so that lambda is another one on
every set. Without units it takes

    lambda sd(r) min(u / u_95, most)

where numbers of a step are in their own deviations, u_95 is the quantile of u that 95 % of the data's steps lie below,
and sd(r) the deviation of the data's rewards. (Lu et al. is arXiv 2110.04135.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from legato.models.ensemble import Ensemble
from legato.models.environment_model import EnvironmentModel

Kind = Literal["max_aleatoric", "max_pairwise", "ensemble_std", "none"]
Units = Literal["data", "raw"]
QUANTILE = 0.95
"""of the data's steps lie below an uncertainty of 1"""


def max_aleatoric(deviation: Float[Array, "members *batch outputs"]) -> Float[Array, "*batch"]:
    """The largest norm of a member's standard deviations."""
    return jnp.linalg.norm(deviation, axis=-1).max(axis=0)


def max_pairwise(mean: Float[Array, "members *batch outputs"]) -> Float[Array, "*batch"]:
    """The largest distance of two members' means; 0 of a single member."""
    # Each pair is some k places apart on a ring, with k at most half of them.
    shifts = range(1, len(mean) // 2 + 1)
    apart = [jnp.linalg.norm(mean - jnp.roll(mean, k, axis=0), axis=-1).max(axis=0) for k in shifts]
    return jnp.stack(apart).max(axis=0) if apart else jnp.zeros(mean.shape[1:-1])


def ensemble_std(mean: Float[Array, "members *batch outputs"]) -> Float[Array, "*batch"]:
    """The norm of the deviations of the members' means."""
    return jnp.linalg.norm(mean.std(axis=0), axis=-1)


def uncertainty(
    model: Ensemble, x: Float[Array, "*batch inputs"], kind: Kind, units: Units = "data"
) -> Float[Array, "*batch"]:
    """u(x), with what is predicted in deviations of the data's own, or raw; 0 of the kind "none"."""
    if kind == "none":
        return jnp.zeros(x.shape[:-1])
    mean, deviation = model(x)
    if units == "data":
        mean, deviation = mean / model.outputs.deviation, deviation / model.outputs.deviation
    if kind == "max_aleatoric":
        return max_aleatoric(deviation)
    return max_pairwise(mean) if kind == "max_pairwise" else ensemble_std(mean)


def unit_of(u: Float[Array, " rows"]) -> Float[Array, ""]:
    """u_95 of the data's steps; 1 where that is 0."""
    found = jnp.quantile(u, QUANTILE)
    return jnp.where(found > 0, found, 1.0)


class Penalty(eqx.Module):
    """What imagined rewards lose."""

    unit: Float[Array, ""]
    """u_95"""
    reward_deviation: Float[Array, ""]
    """sd(r)"""
    weight: float = eqx.field(static=True)
    """lambda"""
    most: float = eqx.field(static=True)
    """largest uncertainty that counts, in units of u_95; not of raw ones"""
    kind: Kind = eqx.field(static=True)
    units: Units = eqx.field(static=True)

    def __call__(
        self, model: EnvironmentModel, s: Float[Array, "*batch obs"], a: Float[Array, "*batch act"]
    ) -> dict[str, Float[Array, "*batch"]]:
        """For each step `penalty`, in units of the reward; `uncertainty`, u / u_95; and `beyond_data`: is it above
        1?
        """
        u = uncertainty(model.gaussian, jnp.concatenate([s, a], axis=-1), self.kind, self.units)
        relative = u / self.unit
        if self.units == "raw":
            loss = self.weight * u
        else:
            loss = self.weight * self.reward_deviation * jnp.minimum(relative, self.most)
        return {"penalty": loss, "uncertainty": relative, "beyond_data": (relative > 1).astype(loss.dtype)}

    @property
    def largest(self) -> Float[Array, ""]:
        """The largest penalty that there is: infinite in raw units, unless nothing is lost."""
        if self.weight == 0 or self.kind == "none":
            return jnp.zeros(())
        return jnp.asarray(jnp.inf) if self.units == "raw" else self.weight * self.most * self.reward_deviation


def advised_weight(beyond: Mapping[float, float], share: float = 0.1) -> float | None:
    """The smallest weight under which less than this `share` of the imagined steps was beyond the data; None where
    there is none.

    `beyond` has that share for each weight, of what a policy imagined that had learnt under it.
    """
    return min((weight for weight, found in beyond.items() if found < share), default=None)
