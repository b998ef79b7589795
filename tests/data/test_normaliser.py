"""Normalised observations have mean 0 and deviation 1, however many there are and however far from 0 they lie."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from legato.data import normaliser


@pytest.mark.parametrize("chunk", [3, 100, 10**6])
def test_mean_0_and_deviation_1(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normaliser, "CHUNK", chunk)
    x = (np.random.default_rng(0).normal(size=(1000, 3)) * [1e-3, 1, 50] + [1000, 0, -7]).astype(np.float32)
    it = normaliser.of(x)
    np.testing.assert_allclose(it.mean, x.mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(it.deviation, x.std(axis=0, dtype=np.float64) + 1e-6, rtol=1e-4)
    scaled = np.asarray(it(x), np.float64)[:, 1:]  # the first lies too far from 0 for float32 to centre it
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(axis=0), 1, atol=1e-4)


def test_a_constant_becomes_0() -> None:
    x = np.full((10, 2), 3.5, np.float32)
    np.testing.assert_array_equal(normaliser.of(x)(x), 0)


def test_none_changes_nothing() -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(normaliser.none(3)(x), x)


def test_no_gradient_changes_the_statistics() -> None:
    x = jnp.arange(6.0).reshape(2, 3)
    gradient, slope = jax.grad(lambda it, x: jnp.sum(it(x) ** 2), argnums=(0, 1))(normaliser.of(np.asarray(x)), x)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))
    assert np.all(slope != 0)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.3, 1e6])
@pytest.mark.parametrize("rounding", [False, True])
def test_a_number_that_never_changed_is_no_thousand_deviations_away_when_it_does(value: float, rounding: bool) -> None:
    x = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    x[:, 1] = value
    x[::7, 1] = np.nextafter(np.float32(value), np.float32(np.inf)) if rounding and value else value
    it = normaliser.of(x)
    moved = np.array([0.5, value + 0.001], np.float32)
    assert abs(float(it(moved)[1])) <= 0.0011 + abs(value) * 1e-7
    assert normaliser.constant_numbers(x) == [1]
    alone = normaliser.of(x[:, :1])  # the other number has the units that it always had
    np.testing.assert_array_equal(it.deviation[:1], alone.deviation)
    assert it.deviation[0] == np.float32(np.sqrt(((x[:, 0] - x[:, 0].mean(dtype=np.float64)) ** 2).mean()) + 1e-6)


def test_a_small_spread_about_a_large_mean_is_one() -> None:
    x = np.array([[1e4], [1e4 + 1], [1e4 + 2]], np.float32)
    assert normaliser.constant_numbers(x) == []
    np.testing.assert_allclose(normaliser.of(x).deviation, np.sqrt(2 / 3), rtol=1e-5)
