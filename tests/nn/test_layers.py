"""Dropout by random bytes; the norm is tested where it is used."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from legato.nn.layers import drop, dropout_bits


def test_dropout_keeps_the_mean_at_a_rate_of_256ths() -> None:
    x = jnp.ones((200, 200))
    found = drop(x, 0.1, dropout_bits(jax.random.key(0), x.shape))
    assert set(np.unique(found)) == {0.0, np.float32(256 / 230)}  # 0.1 is 26/256
    assert float(found.mean()) == pytest.approx(1, abs=0.01)
    assert drop(x, 0.1, None) is x


def test_every_byte_is_as_likely() -> None:
    bytes_ = np.asarray(dropout_bits(jax.random.key(1), (301, 77)))
    assert stats.chisquare(np.bincount(bytes_.ravel(), minlength=256)).pvalue > 0.01


def test_bytes_of_one_key_and_of_two_hang_together_no_more_than_chance() -> None:
    """Also where keys are neighbours, as those of consecutive updates and of seeds are."""
    keys = [*jax.random.split(jax.random.key(0), 2), *(jax.random.fold_in(jax.random.key(7), i) for i in range(3))]
    drawn = np.stack([np.asarray(dropout_bits(key, (2**18,))) for key in keys])
    bits = 2.0 * np.unpackbits(drawn, axis=1) - 1
    count = bits.shape[1]
    assert np.abs(bits @ bits.T / count - np.eye(len(keys))).max() < 5 / count**0.5
    for lag in (1, 2, 7, 8, 16, 31, 32, 33, 64, 4096):
        together = (bits[:, lag:] * bits[:, :-lag]).mean(axis=1)
        assert np.abs(together).max() < 5 / count**0.5
    pairs = np.bincount(drawn[0, 0::2].astype(int) // 16 * 16 + drawn[0, 1::2] // 16, minlength=256)
    assert stats.chisquare(pairs).pvalue > 0.01


def test_seeds_side_by_side_toss_as_each_does_alone() -> None:
    keys = jax.random.split(jax.random.key(3), 3)
    together = jax.vmap(lambda key: dropout_bits(key, (5, 7)))(keys)
    assert (np.asarray(together) == np.stack([dropout_bits(key, (5, 7)) for key in keys])).all()
