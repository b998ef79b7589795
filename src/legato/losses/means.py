"""Means over what counts: batches have rows that are padding, or of which nothing is known."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def masked_mean(values: Float[Array, "*batch"], mask: Bool[Array, "*batch"]) -> Float[Array, ""]:
    """The mean of the values where `mask`; 0 where it is nowhere. What lies elsewhere may be anything, NaN too."""
    return jnp.sum(jnp.where(mask, values, 0)) / jnp.maximum(mask.sum(), 1)


def weighted_mean(
    values: Float[Array, "*batch"], mask: Bool[Array, "*batch"], weight: Float[Array, "*#batch"]
) -> Float[Array, ""]:
    """sum_i w_i x_i / sum_i w_i over the values where `mask`; 0 where no weight is left."""
    counts = mask * weight
    return jnp.sum(jnp.where(mask, values * counts, 0)) / jnp.maximum(counts.sum(), 1e-6)
