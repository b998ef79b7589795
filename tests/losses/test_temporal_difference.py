"""Targets and errors of two critics, by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from legato.losses.temporal_difference import td_target, twin_error, twin_loss

R, M, V = jnp.array([1.0, 2.0, -1.0]), jnp.array([1.0, 0.0, 1.0]), jnp.array([10.0, 20.0, 30.0])


def test_only_an_end_stops_bootstrapping() -> None:
    np.testing.assert_allclose(td_target(R, M, 0.5, V), [6, 2, 14])


def test_after_several_steps_each_has_its_discount() -> None:
    np.testing.assert_allclose(td_target(R, M, 0.5 ** jnp.array([1, 2, 3]), V), [6, 2, 2.75])


def test_a_target_sends_no_gradient() -> None:
    gradient = jax.grad(lambda v: td_target(R, M, 0.5, v).sum())(V)
    np.testing.assert_array_equal(gradient, 0)


def test_the_loss_of_two_critics_is_the_sum_of_theirs() -> None:
    q, y = (jnp.array([1.0, 2.0]), jnp.array([4.0, 3.0])), jnp.array([2.0, 0.0])
    np.testing.assert_allclose(twin_error(q, y), [1 + 4, 4 + 9])
    assert float(twin_loss(q, y)) == pytest.approx((1 + 4) / 2 + (4 + 9) / 2)
