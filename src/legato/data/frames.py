"""The images of a replay buffer: bytes on the device, each stored once although two transitions show it."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt8

from legato.data import ring

SPARE = 16  # transitions, for each of which an image more is kept than one: where episodes begin, two are new


class Frames(eqx.Module):
    """A ring of images, and which of them each row of a replay shows as s and as s'.

    The image after a step is stored as s' and shown again as the s of the same environment's next step. Only where that
    step begins elsewhere, in a new episode, is its s stored as well: the last image of a truncated episode is kept like
    any other. Where episodes are so short that images run out before rows, the oldest rows are no longer drawn.
    """

    bytes: UInt8[Array, "frames obs"]
    shown: Int[Array, "capacity 2"]
    """of each row, the numbers of s and s', counted since the first image ever added"""
    added: Int[Array, ""]
    """images, ever"""
    oldest: Int[Array, ""]
    """the number of the oldest row, counted since the first ever added, whose images are all there"""

    def pair(self, rows: Int[Array, "*batch"]) -> tuple[UInt8[Array, "*batch obs"], UInt8[Array, "*batch obs"]]:
        """s and s' of these rows of the ring."""
        frames = self.bytes[self.shown[rows] % len(self.bytes)]
        return frames[..., 0, :], frames[..., 1, :]


def frames_kept(capacity: int, members: int) -> int:
    """Images that are kept for so many transitions of so many environments."""
    return capacity + -(-capacity // SPARE) + 2 * members


def create(capacity: int, members: int, size: int) -> Frames:
    """No images yet, each of `size` bytes."""
    zero = jnp.zeros((), jnp.int32)
    frames = jnp.zeros((frames_kept(capacity, members), size), jnp.uint8)
    return Frames(frames, jnp.zeros((capacity, 2), jnp.int32), zero, zero)


def add(
    frames: Frames, seen: UInt8[Array, "rows 2 obs"], rows_added: Int[Array, ""], count: Int[Array, ""], members: int
) -> Frames:
    """Append s and s' of the first `count` rows, to a replay of `rows_added` rows before; the others are padding.

    The row `members` before is the same environment's step before: where its s' is this s, byte for byte, that is
    shown again.

    Raises `ValueError` where the ring has fewer places than so many rows may need.
    """
    n, (capacity, _), kept = len(seen), frames.shown.shape, len(frames.bytes)
    if 2 * n > kept:  # an image would be overwritten by another of the same call
        raise ValueError(f"{n} rows at once need places for {2 * n} images; there are {kept}")
    row = jnp.arange(n)
    real = row < count
    earlier = min(members, n)
    place = (rows_added + row[:earlier] - members) % capacity
    _, stored = frames.pair(place)
    before = jnp.concatenate([stored, seen[: n - earlier, 1]])
    same = (before == seen[:, 0]).all(axis=-1) & (rows_added + row >= members)
    new = real & ~same
    costs = new.astype(jnp.int32) + real
    begin = frames.added + jnp.cumsum(costs) - costs
    after = begin + new
    s = jnp.where(new, begin, jnp.concatenate([frames.shown[place, 1], after[: n - earlier]]))
    # What is padding or is there already is sent out of bounds, where a scatter drops it.
    target = jnp.concatenate([jnp.where(new, begin % kept, kept), jnp.where(real, after % kept, kept)])
    stored = frames.bytes.at[target].set(jnp.concatenate([seen[:, 0], seen[:, 1]]), mode="drop")
    shown = ring.append(frames.shown, jnp.stack([s, after], axis=-1).astype(jnp.int32), rows_added, count)
    added, rows_added = frames.added + costs.sum(), rows_added + count
    number = rows_added - 1 - (rows_added - 1 - jnp.arange(capacity)) % capacity  # of the row in each slot
    lost = (number >= 0) & (shown.min(axis=-1) < added - kept)
    oldest = jnp.maximum(jnp.max(jnp.where(lost, number, -1)) + 1, rows_added - capacity)
    # What is lost stays so, though the ring may have grown since (`place_images`).
    return Frames(stored, shown, added, jnp.maximum(oldest, frames.oldest))


def place_images(
    images: UInt8[np.ndarray, "kept obs"], added: int, places: int
) -> tuple[Int[np.ndarray, " images"], UInt8[np.ndarray, "images obs"]]:
    """Where the images of a ring, to which `added` ever went, belong in one of so many `places`; and these images."""
    number = added - 1 - (added - 1 - np.arange(len(images))) % len(images)
    there = (number >= 0) & (number >= added - places)
    return number[there] % places, images[there]
