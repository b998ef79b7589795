"""Hidden numbers: which, how many, and that a token of a hundred says so."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.tiny import swings

from legato.data import masking, tokens
from legato.errors import LegatoError


def test_half_of_the_numbers_are_hidden_each_for_itself() -> None:
    rng = np.random.default_rng(1)
    data = swings(observations=rng.normal(size=(102, 3)))
    hidden, mask = masking.hide(data, 0.5, seed=3)
    gone = np.asarray(mask.missing(jnp.asarray(hidden.observations)))
    np.testing.assert_array_equal(hidden.observations[~gone], data.observations[~gone])
    np.testing.assert_array_equal(hidden.observations[gone], np.broadcast_to(mask.mark, gone.shape)[gone])
    assert 0.35 < gone.mean() < 0.65
    both = gone[:, 0] & gone[:, 1]
    assert 0.1 < both.mean() < 0.4  # neither together nor in turn
    assert not np.asarray(mask.missing(jnp.asarray(data.observations))).any()
    again, _ = masking.hide(data, 0.5, seed=3)
    np.testing.assert_array_equal(again.observations, hidden.observations)
    assert (masking.hide(data, 0.5, seed=4)[0].observations != hidden.observations).any()
    assert hidden.about == data.about and (hidden.actions == data.actions).all()


def test_the_observations_after_the_last_steps_are_hidden_too() -> None:
    data = swings(final_observations=np.random.default_rng(0).normal(size=(12, 3)))
    hidden, mask = masking.hide(data, 0.5)
    assert hidden.final_observations is not None and data.final_observations is not None
    gone = np.asarray(hidden.final_observations == mask.mark)
    assert 0.2 < gone.mean() < 0.8
    np.testing.assert_array_equal(hidden.final_observations[~gone], data.final_observations[~gone])


def test_of_a_hundred_even_bins_the_lowest_says_missing() -> None:
    data, mask = masking.hide(swings(), 0.5)
    gone = np.asarray(mask.missing(jnp.asarray(data.observations)))
    bins = tokens.fit(data.observations, 100, "uniform")
    found = tokens.encode(bins, data.observations)
    np.testing.assert_array_equal(found == 0, gone)
    np.testing.assert_array_equal(np.asarray(mask.missing(bins.decode(jnp.asarray(found, jnp.int32)))), gone)


def test_reading_fills_with_means_and_says_where() -> None:
    mask = masking.Mask(jnp.zeros(2), jnp.full(2, -1.0), jnp.array([5.0, 6.0]), 0.5)
    read = mask.read(jnp.array([[-1.0, 2.0], [3.0, -1.0]]))
    np.testing.assert_array_equal(read, [[5, 2, 1, 0], [3, 6, 0, 1]])
    fresh = np.asarray(mask.hide(jnp.ones((1000, 2)), jax.random.key(0)))
    assert 0.45 < (fresh == -1).mean() < 0.55


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_is_less_than_all(share: float) -> None:
    with pytest.raises(LegatoError, match=r"the share that is hidden lies in \[0, 1\)"):
        masking.hide(swings(), share)
