"""Episodes in slots: windows are what was played, with the returns that were earned; which episodes go first."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from legato.data import episode_replay
from legato.data.recurrent_replay import Episode
from legato.data.spec import Spec

SPEC, LONGEST = Spec(2, (-1.0,), (1.0,)), 5
add = jax.jit(episode_replay.add, static_argnums=2)
draw = jax.jit(episode_replay.sample_windows, static_argnums=(2, 3))


def played(number: int, steps: int, rows: int = 8, terminated: bool = True) -> Episode:
    """An episode whose observations are (its number, the step), and whose step t earns 2^t. Padding is NaN."""
    observations, actions, rewards = np.full((rows, 2), np.nan), np.full((rows, 1), np.nan), np.full(rows, np.nan)
    t = np.arange(steps)
    observations[:steps], actions[:steps, 0], rewards[:steps] = np.stack([t * 0 + number, t], -1), t / 8, 2.0**t
    arrays = (jnp.asarray(array, jnp.float32) for array in (observations, actions, rewards))
    return Episode(*arrays, jnp.asarray(steps, jnp.int32), jnp.asarray(terminated), jnp.asarray(99.0))


def test_windows_are_what_was_played() -> None:
    """Whatever was asked for, returns-to-go are what was earned; the oldest slot is taken anew."""
    replay = episode_replay.create(SPEC, 3, LONGEST)
    for number, steps in enumerate([3, 5, 2, 4]):  # the last takes the slot of the first
        replay = add(replay, played(number, steps, terminated=number != 3), 1.0)
        replay = add(replay, played(77, 0), 1.0)  # no episode
    found = draw(replay, jax.random.key(0), 800, 3)
    window, lengths = found.window, np.array([0, 5, 2, 4])
    assert not np.isnan(window.observations).any() and not np.isnan(found.rewards).any()
    number, first = np.asarray(window.observations[:, 0]).astype(int).T
    assert set(zip(number.tolist(), first.tolist(), strict=True)) == {
        (n, t) for n in (1, 2, 3) for t in range(lengths[n])
    }
    step = first[:, None] + np.arange(3)
    there = step < lengths[number][:, None]
    np.testing.assert_array_equal(window.mask, there)
    np.testing.assert_array_equal(window.timesteps, np.where(there, step, 0))
    np.testing.assert_array_equal(found.rewards, np.where(there, 2.0**step, 0))
    np.testing.assert_array_equal(window.returns_to_go, np.where(there, 2.0 ** lengths[number][:, None] - 2.0**step, 0))
    last = there & (step == lengths[number][:, None] - 1)
    np.testing.assert_array_equal(found.terminated, last & (number != 3)[:, None])
    np.testing.assert_array_equal(found.has_next, there & ~last & (np.arange(3) < 2))


def test_every_step_is_as_likely_as_any_other() -> None:
    replay = episode_replay.create(SPEC, 4, LONGEST)
    for number, steps in enumerate([1, 4, 3]):
        replay = add(replay, played(number, steps), 1.0)
    found = np.asarray(draw(replay, jax.random.key(1), 4000, 1).window.observations[:, 0, 0]).astype(int)
    np.testing.assert_allclose(np.bincount(found) / 4000, np.array([1, 4, 3]) / 8, atol=0.03)


def test_of_a_longer_episode_the_beginning_is_kept_and_it_does_not_end_there() -> None:
    replay = add(episode_replay.create(SPEC, 1, LONGEST), played(0, 7), 1.0)
    found = draw(replay, jax.random.key(0), 50, 1)
    assert np.asarray(found.window.observations[:, 0, 1]).max() == 4
    assert not np.asarray(found.terminated).any()
    np.testing.assert_array_equal(found.window.returns_to_go[:, 0], 128 - 2.0 ** found.window.observations[:, 0, 1])


@pytest.mark.parametrize("gamma", [1.0, 0.5])
def test_returns_are_discounted_as_they_are_asked_for(gamma: float) -> None:
    replay = add(episode_replay.create(SPEC, 1, LONGEST), played(0, 3), gamma)
    expected = {1.0: [7, 6, 4], 0.5: [3, 4, 4]}[gamma]
    np.testing.assert_array_equal(replay.episodes.returns_to_go[:3], expected)
