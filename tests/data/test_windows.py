"""Windows: they are what lies in the episodes, never cross into another, and are drawn uniformly over steps."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from tests.data.test_trajectories import raw

from legato.data import trajectories as logs
from legato.data import windows
from legato.data.trajectories import About, trajectories


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize(("lengths", "length"), [([1], 1), ([1], 4), ([4, 1, 7], 3), ([2, 9, 1, 3], 12)])
def test_a_window_is_a_slice_of_its_episode(lengths: list[int], length: int, discrete: bool) -> None:
    given, about = raw(lengths), About()
    if discrete:
        given["actions"], about = 1 + np.arange(sum(lengths)) % 4, About(choices=5)
    data = trajectories(**given, about=about)
    togo = logs.returns_to_go(data)
    found = windows.window(windows.episodes(data), jnp.arange(data.steps), length)
    row = 0
    for i in range(len(data)):
        at = data.episode(i)
        before = np.concatenate([np.zeros_like(data.actions[:1]), data.actions[at][:-1]])
        for t in range(lengths[i]):
            n = min(length, lengths[i] - t)
            for name, of_episode in (
                ("observations", data.observations[at]),
                ("actions", data.actions[at]),
                ("previous", before),
                ("returns_to_go", togo[at]),
                ("timesteps", np.arange(lengths[i])),
                ("mask", np.ones(lengths[i], bool)),
            ):
                here = np.asarray(getattr(found, name)[row])
                np.testing.assert_array_equal(here[:n], of_episode[t : t + n], err_msg=name)
                assert not here[n:].any(), name
            row += 1


def test_windows_begin_at_every_step_alike() -> None:
    lengths, size = [1, 7, 2, 30], 200_000
    data = windows.episodes(trajectories(**raw(lengths)))
    found = jax.jit(windows.sample, static_argnums=(2, 3))(data, jax.random.key(0), size, 3)
    episode, step = np.asarray(found.observations[:, 0]).astype(int).T
    seen = np.bincount(np.cumsum([0, *lengths])[episode] + step, minlength=sum(lengths))
    assert stats.chisquare(seen).pvalue > 0.01
    other = jax.jit(windows.sample, static_argnums=(2, 3))(data, jax.random.key(1), size, 3)
    assert not np.array_equal(found.timesteps, other.timesteps)


def test_whole_episodes_weigh_as_they_are_long_and_of_long_ones_a_stretch_is_drawn() -> None:
    lengths = [1, 7, 2, 30]
    data = windows.episodes(trajectories(**raw(lengths)))
    found = jax.jit(windows.sample_whole, static_argnums=(2, 3))(data, jax.random.key(0), 50_000, 10)
    begun = np.asarray(found.timesteps[:, 0])
    long = np.asarray(found.observations[:, 0, 0]) == 3
    assert not begun[~long].any()
    assert stats.chisquare(np.bincount(begun[long], minlength=21)).pvalue > 0.01
    whole = data.draw(jax.random.key(0), windows.BatchSpec(1000, 30, whole=True))
    assert not np.asarray(whole.timesteps[:, 0]).any()
    np.testing.assert_array_equal(
        found.mask.sum(axis=1), np.minimum(10, lengths)[found.observations[:, 0, 0].astype(int)]
    )
    drawn = np.bincount(np.asarray(found.observations[:, 0, 0]).astype(int), minlength=4)
    assert stats.chisquare(drawn, 50_000 * np.array(lengths) / sum(lengths)).pvalue > 0.01


def test_short_episodes_have_buckets_of_their_own() -> None:
    lengths, whole = np.array([100, 51, 50, 13, 12, 3]), windows.BatchSpec(4, 1000, whole=True)
    found = windows.buckets(lengths, whole)
    assert [(draw.length, draw.size, draw.bucket) for draw in found] == [(13, 30, 0), (50, 8, 1), (100, 4, 2)]
    assert all(draw.whole for draw in found)
    # A half that would hold next to nothing is left out, and one that holds no more than a shorter one.
    assert [draw.length for draw in windows.buckets(np.array([100] * 20 + [10]), whole)] == [100]
    assert [draw.length for draw in windows.buckets(np.array([100] + [10] * 9), whole)] == [13, 100]
    assert [draw.length for draw in windows.buckets(np.array([1, 1]), whole)] == [1]
    # Of episodes longer than may be, stretches are as long as may be.
    cut = windows.BatchSpec(4, 60, whole=True)
    assert [(draw.length, draw.size) for draw in windows.buckets(lengths, cut)] == [(15, 16), (60, 4)]
    windowed = windows.BatchSpec(4, 60)
    assert windows.buckets(lengths, windowed) == (windowed,)


def test_of_buckets_every_step_weighs_alike_and_no_episode_is_cut() -> None:
    lengths = np.array([40, 3, 20, 9, 40, 5])
    batch_specs = windows.buckets(lengths, windows.BatchSpec(2, 40, whole=True))
    assert [draw.length for draw in batch_specs] == [5, 10, 20, 40]
    data = windows.episodes(trajectories(**raw(lengths.tolist())), 1.0, batch_specs)
    turns = np.asarray(jax.vmap(lambda update: windows.bucket_of(data, update))(jnp.arange(20_000)))
    share = np.array([8, 9, 20, 80]) / lengths.sum()
    assert stats.chisquare(np.bincount(turns, minlength=4), 20_000 * share).pvalue > 0.01
    for draw, held in zip(batch_specs, ([1, 5], [3], [2], [0, 4]), strict=True):
        found = data.draw(jax.random.key(3), replace(draw, size=10_000))
        assert found.mask.shape == (10_000, draw.length)
        episode = np.asarray(found.observations[:, 0, 0]).astype(int)
        np.testing.assert_array_equal(found.mask.sum(axis=1), lengths[episode])
        seen = np.bincount(episode, minlength=len(lengths))
        assert seen.sum() == seen[held].sum()
        if len(held) > 1:
            assert stats.chisquare(seen[held], 10_000 * lengths[held] / lengths[held].sum()).pvalue > 0.01


def test_discounted_and_missing_returns() -> None:
    data = trajectories(**raw([3, 4]))
    assert not np.asarray(windows.episodes(trajectories(**{**raw([3, 4]), "rewards": None})).returns_to_go).any()
    np.testing.assert_allclose(windows.episodes(data, 0.9).returns_to_go, logs.returns_to_go(data, 0.9))
