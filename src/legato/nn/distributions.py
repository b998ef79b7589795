"""Distributions over actions."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0


class TanhNormal(eqx.Module):
    """a = bias + scale * tanh(u) with u ~ N(mean, std): a Gaussian squashed into the box of actions.

    (Haarnoja et al. 2018, appendix C; `bias` and `scale` are the box's centre and half of its width.)
    """

    mean: Float[Array, "*batch act"]
    log_std: Float[Array, "*batch act"]
    bias: Float[Array, " act"]
    scale: Float[Array, " act"]

    def __init__(self, mean: Array, log_std: Array, bias: Array, scale: Array):
        self.mean = mean
        self.log_std = jnp.clip(log_std, LOG_STD_MIN, LOG_STD_MAX)
        self.bias, self.scale = bias, scale

    def mode(self) -> Float[Array, "*batch act"]:
        """tanh(mean) in the units of the environment: the greedy action."""
        return self.bias + self.scale * jnp.tanh(self.mean)

    def sample(self, noise: Float[Array, "*batch act"]) -> tuple[Float[Array, "*batch act"], Float[Array, "*batch"]]:
        """The action that standard-normal `noise` selects, differentiable, and its log-density (summed over `act`)."""
        t = jnp.tanh(self.mean + jnp.exp(self.log_std) * noise)
        log_normal = -0.5 * noise**2 - self.log_std - 0.5 * jnp.log(2 * jnp.pi)
        log_density = log_normal - jnp.log(self.scale * (1 - t**2) + 1e-6)  # 1e-6: no infinity where tanh saturates
        return self.bias + self.scale * t, log_density.sum(-1)
