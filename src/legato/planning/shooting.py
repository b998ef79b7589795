"""Planning by shooting: sequences of actions are drawn, imagined and judged; the better ones say where to draw next.

    a^i  ~ N(mean, std^2), clipped to the bounds,  i = 1 ... samples;  proposals join them
    J_i  = what the caller's objective says of a^i, such as its imagined return
    w_i  = softmax(temperature (J_i - max J)) over the elites
    mean = sum_i w_i a^i,  std^2 = sum_i w_i (a^i - mean)^2            and again, `iterations` times

At temperature 0 all elites count alike: the cross-entropy method, CEM (Rubinstein 1999; in this form Chua et al. 2018,
arXiv 1805.12114). Above, those that are judged better count more: model-predictive path integrals, MPPI (Williams et
al. 2015, arXiv 1509.01149), in the form of Hansen et al. 2024 (arXiv 2310.16828). Actions are in units of their bounds.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from legato.planning.options import Shooting

Objective = Callable[[Float[Array, "horizon act"]], Float[Array, ""]]


def plan(
    objective: Objective,
    mean: Float[Array, "horizon act"],
    key: PRNGKeyArray,
    how: Shooting,
    proposals: Float[Array, "others horizon act"] | None = None,
) -> Float[Array, "horizon act"]:
    """The mean of the last distribution; the first one's is `mean`. `objective` gives J of one sequence."""

    def turn(carry: tuple[Array, Array], key: PRNGKeyArray) -> tuple[tuple[Array, Array], None]:
        mean, std = carry
        drawn = mean + std * jax.random.normal(key, (how.samples, *mean.shape))
        drawn = jnp.clip(drawn if proposals is None else jnp.concatenate([drawn, proposals]), -1, 1)
        value = jax.vmap(objective)(drawn)
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
