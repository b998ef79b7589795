"""Convolutions on a circle: against the sum itself, and what a shift of the field and of its forcing does."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from legato.errors import LegatoError
from legato.nn.circulant import CirculantNetwork, PeriodicConvolution


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("kernel", [3, 8])
def test_a_convolution_is_the_sum_over_neighbours_on_the_circle(kernel: int) -> None:
    layer = PeriodicConvolution(kernel, 2, 3, key=jax.random.key(0))
    layer = eqx.tree_at(lambda layer: layer.bias, layer, jnp.arange(3.0))
    x, w, expected = numbers(4, 8, 2), np.asarray(layer.weight), np.zeros((4, 8, 3))
    for i in range(8):
        for j in range(kernel):
            expected[:, i] += x[:, (i + j - kernel // 2) % 8] @ w[j]
    np.testing.assert_allclose(layer(jnp.asarray(x)), expected + np.arange(3), atol=1e-5)


def shiftable() -> Any:
    """A network with a linear part and log-variances that depend on the field."""
    network = CirculantNetwork(16, lambda a: a @ numbers(2, 16, seed=1), 0.5, (4,), kernel=3, key=jax.random.key(0))
    return eqx.tree_at(lambda n: n.linear.weight, network, jnp.asarray(numbers(16, 2, 1, seed=2)))


def test_a_shift_of_field_and_forcing_shifts_what_is_predicted() -> None:
    network, field, forcing = shiftable(), numbers(5, 16), numbers(5, 16, seed=3)
    both = jnp.asarray(np.stack([np.roll([field, forcing], by, axis=-1) for by in (0, 5)]))
    here, there = np.asarray(network.predict(both[:, 0], both[:, 1])).reshape(2, 5, 2, 16)
    assert here.std(axis=-1).min() > 0.01  # both halves vary along the grid
    np.testing.assert_allclose(np.roll(here, 5, axis=-1), there, atol=1e-5)


def test_actions_are_read_through_their_forcing_in_the_units_given() -> None:
    network, field, action = shiftable(), jnp.asarray(numbers(16)), jnp.asarray(numbers(2, seed=4))
    read = network(jnp.concatenate([field, action]))
    np.testing.assert_allclose(read, network.predict(field, action @ numbers(2, 16, seed=1)), atol=1e-5)
    halved = eqx.tree_at(lambda n: n.linear.weight, network, network.linear.weight.at[:, 0].set(0))
    silent = eqx.tree_at(lambda n: n.layers[0].weight, halved, jnp.zeros_like(network.layers[0].weight))
    still, pushed = (silent.predict(field, f * jnp.ones(16))[:16] for f in (0.0, 1.0))
    np.testing.assert_allclose(pushed - still, np.full(16, 2 * numbers(16, 2, 1, seed=2)[:, 1].sum()), atol=1e-4)


def test_a_grid_smaller_than_the_kernel_is_refused() -> None:
    with pytest.raises(LegatoError, match=r"needs 7 points or more; 4 were given"):
        CirculantNetwork(4, lambda a: a, 1.0, key=jax.random.key(0))
