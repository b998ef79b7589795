"""Distributions over actions."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0


class TanhNormal(eqx.Module):
    """a = tanh(u) * scale + bias with u ~ N(mean, std): a Gaussian squashed into the box of actions.

    (Haarnoja et al. 2018, appendix C; `scale` and `bias` are half the box's width and its centre.)
    """

    mean: Float[Array, "*batch act"]
    log_std: Float[Array, "*batch act"]
    scale: Float[Array, " act"]
    bias: Float[Array, " act"]

    def __init__(self, mean: Array, log_std: Array, low: Array, high: Array):
        self.mean = mean
        self.log_std = jnp.clip(log_std, LOG_STD_MIN, LOG_STD_MAX)
        self.scale = (high - low) / 2
        self.bias = (high + low) / 2

    def mode(self) -> Float[Array, "*batch act"]:
        """tanh(mean) in the units of the environment: the greedy action."""
        return jnp.tanh(self.mean) * self.scale + self.bias

    def sample(self, noise: Float[Array, "*batch act"]) -> tuple[Float[Array, "*batch act"], Float[Array, "*batch"]]:
        """The action that standard-normal `noise` selects, differentiable, and its log-density (summed over `act`)."""
        t = jnp.tanh(self.mean + jnp.exp(self.log_std) * noise)
        log_normal = -0.5 * noise**2 - self.log_std - 0.5 * jnp.log(2 * jnp.pi)
        log_density = log_normal - jnp.log(self.scale * (1 - t**2) + 1e-6)  # 1e-6: no infinity where tanh saturates
        return t * self.scale + self.bias, log_density.sum(-1)
