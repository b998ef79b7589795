"""Rows in a ring on the device: the newest stay, older ones are overwritten."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped


def append(
    ring: Shaped[Array, "capacity *rest"],
    rows: Shaped[Array, "rows *rest"],
    added: Int[Array, ""],
    count: Int[Array, ""],
) -> Shaped[Array, "capacity *rest"]:
    """The ring, to which `added` rows ever went, with the first `count` of `rows`; the others are padding."""
    row = jnp.arange(len(rows))
    # Padding is sent out of bounds, where a scatter drops it.
    place = jnp.where(row < count, (added + row) % len(ring), len(ring))
    return ring.at[place].set(rows, mode="drop")
