"""Planning by shooting: sequences of actions are drawn, imagined and judged; the better ones say where to draw next.

    a^i  ~ N(mean, std^2), clipped to the bounds,  i = 1 ... samples;  proposals join them
    J_i  = what the caller's judge says of a^i, such as its imagined return
    w_i  = softmax(temperature (J_i - max J)) over the elites
    mean = sum_i w_i a^i,  std^2 = sum_i w_i (a^i - mean)^2            and again, `iterations` times

At temperature 0 all elites count alike: the cross-entropy method, CEM (Rubinstein 1999; in this form Chua et al. 2018,
arXiv 1805.12114). Above, those that are judged better count more: model-predictive path integrals, MPPI (Williams et
al. 2015, arXiv 1509.01149), in the form of Hansen et al. 2024 (arXiv 2310.16828). Actions are in units of their bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from legato.errors import LegatoError

Judge = Callable[[Float[Array, "horizon act"]], Float[Array, ""]]


@dataclass(frozen=True)
class Shooting:
    """How a plan is looked for."""

    horizon: int = 5
    """actions of a plan, H"""
    samples: int = 64
    """sequences that are drawn in each iteration, proposals not counted"""
    iterations: int = 3
    """times that the distribution is drawn from and moved"""
    elites: int = 8
    """the best so many of them say where it moves"""
    temperature: float = 0.5
    """how much more the better of these count, per unit of J; 0: all alike (CEM)"""
    deviation: float = 1.0
    """of the first iteration's draws, in units of the bounds; TD-MPC2 has 2"""
    least: float = 0.05
    """what the deviation never falls below"""

    def __post_init__(self) -> None:
        for name in ("horizon", "samples", "iterations", "elites"):
            if getattr(self, name) < 1:
                raise LegatoError(f"{name} must be at least 1; {getattr(self, name)} was given")
        if self.elites > self.samples:
            raise LegatoError(f"{self.elites} elites cannot be chosen from {self.samples} samples")
        if not 0 <= self.temperature < float("inf"):
            raise LegatoError(f"temperature must be at least 0 and finite; {self.temperature} was given")
        if not 0 < self.least <= self.deviation < float("inf"):
            raise LegatoError(f"0 < least <= deviation must hold; {self.least} and {self.deviation} were given")


def plan(
    judge: Judge,
    mean: Float[Array, "horizon act"],
    key: PRNGKeyArray,
    how: Shooting,
    proposals: Float[Array, "others horizon act"] | None = None,
) -> Float[Array, "horizon act"]:
    """The mean of the last distribution; the first one's is `mean`. `judge` gives J of one sequence."""

    def turn(carry: tuple[Array, Array], key: PRNGKeyArray) -> tuple[tuple[Array, Array], None]:
        mean, std = carry
        drawn = mean + std * jax.random.normal(key, (how.samples, *mean.shape))
        drawn = jnp.clip(drawn if proposals is None else jnp.concatenate([drawn, proposals]), -1, 1)
        value = jax.vmap(judge)(drawn)
        # A sequence that leads to nowhere finite is the worst there is.
        value = jnp.where(jnp.isfinite(value), value, jnp.finfo(value.dtype).min)
        value, best = jax.lax.top_k(value, how.elites)
        elite, weight = drawn[best], jax.nn.softmax(how.temperature * (value - value[0]))[:, None, None]
        mean = jnp.sum(weight * elite, axis=0)
        std = jnp.sqrt(jnp.sum(weight * (elite - mean) ** 2, axis=0))
        return (mean, jnp.clip(std, how.least, how.deviation)), None

    start = mean, jnp.full_like(mean, how.deviation)
    (mean, _), _ = jax.lax.scan(turn, start, jax.random.split(key, how.iterations))
    return mean
