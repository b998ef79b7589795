"""Means over what counts, of which the rest has no say."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from legato.losses.means import masked_mean, weighted_mean

VALUES, MASK = jnp.array([[1.0, 2.0, jnp.nan], [4.0, jnp.inf, 0.0]]), jnp.array([[1, 1, 0], [1, 0, 0]], bool)


def test_a_mean_is_over_what_counts() -> None:
    assert float(masked_mean(VALUES, MASK)) == pytest.approx(7 / 3)
    assert float(masked_mean(VALUES, jnp.zeros_like(MASK))) == 0
    gradient = jax.grad(masked_mean)(VALUES, MASK)
    np.testing.assert_allclose(gradient, np.asarray(MASK) / 3)


def test_weights_say_how_much_rows_count() -> None:
    weight = jnp.array([[1.0], [3.0]])
    assert float(weighted_mean(VALUES, MASK, weight)) == pytest.approx((1 + 2 + 3 * 4) / 5)
    assert float(weighted_mean(VALUES, MASK, 0 * weight)) == 0
    same = weighted_mean(VALUES, MASK, jnp.ones((2, 1)))
    assert float(same) == pytest.approx(float(masked_mean(VALUES, MASK)))
