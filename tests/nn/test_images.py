"""The encoder of images, against loops."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from legato.nn.images import FEATURES, PatchEncoder, channels_last


def naive_patches(image: np.ndarray, p: int, q: int) -> np.ndarray:
    """Of an image [height, width, channels]: row after row, cut to height p and width q, completed by zeros."""
    height, width, channels = image.shape
    found = []
    for top in range(0, height, p):
        for left in range(0, width, q):
            patch = np.zeros((p, q, channels))
            for i in range(top, min(top + p, height)):
                for j in range(left, min(left + q, width)):
                    patch[i - top, j - left] = image[i, j] / 255
            found.append(patch.ravel())
    return np.array(found)


@pytest.mark.parametrize(
    ("shape", "patch"),
    [((12, 12, 1), (2, 2)), ((9, 20, 3), (2, 3)), ((5, 4), (2, 2)), ((4, 17, 16), (3, 2)), ((2, 10, 11, 3), (2, 2))],
)
def test_patches_are_those_of_the_image(shape: tuple[int, ...], patch: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    encoder = PatchEncoder(shape, key=jax.random.key(0))
    arranged = image.transpose(channels_last(shape))
    expected = naive_patches(arranged.reshape(*arranged.shape[:2], -1), *patch)
    assert encoder.patch == patch
    np.testing.assert_allclose(encoder.patches(jnp.asarray(image.ravel())), expected, atol=1e-6)


def test_channels_may_come_first_or_last() -> None:
    """The same image gives the same features."""
    image = np.random.default_rng(0).integers(256, size=(12, 16, 3), dtype=np.uint8)
    last, first = (PatchEncoder(shape, key=jax.random.key(0)) for shape in ((12, 16, 3), (3, 12, 16)))
    np.testing.assert_array_equal(
        last(jnp.asarray(image.ravel())), first(jnp.asarray(image.transpose(2, 0, 1).ravel()))
    )


def test_bytes_and_shares_of_255_are_the_same() -> None:
    images = jnp.asarray(np.random.default_rng(0).integers(256, size=(2, 5, 144), dtype=np.uint8))
    encoder = PatchEncoder((12, 12, 1), key=jax.random.key(0))
    found = encoder(images)
    assert found.shape == (2, 5, FEATURES)
    assert np.abs(found).max() <= 1
    np.testing.assert_allclose(encoder(images / 255), found, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "order"),
    [((84, 84), (0, 1)), ((84, 84, 3), (0, 1, 2)), ((4, 84, 84), (1, 2, 0)), ((4, 84, 84, 3), (1, 2, 0, 3))],
)
def test_height_and_width_come_first(shape: tuple[int, ...], order: tuple[int, ...]) -> None:
    assert channels_last(shape) == order
