"""Dropout by random bytes; the norm is tested where it is used."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from legato.nn.layers import drop, toss


def test_dropout_keeps_the_mean_at_a_rate_of_256ths() -> None:
    x = jnp.ones((200, 200))
    found = drop(x, 0.1, toss(jax.random.key(0), x.shape))
    assert set(np.unique(found)) == {0.0, np.float32(256 / 230)}  # 0.1 is 26/256
    assert float(found.mean()) == pytest.approx(1, abs=0.01)
    assert drop(x, 0.1, None) is x


def test_every_byte_is_as_likely() -> None:
    bytes_ = np.asarray(toss(jax.random.key(1), (301, 77)))
    assert stats.chisquare(np.bincount(bytes_.ravel(), minlength=256)).pvalue > 0.01
