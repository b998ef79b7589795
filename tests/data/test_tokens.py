"""Trajectories as tokens: bins, what they are read back as, values, windows, and the file they are kept in."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import IO

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from legato.data import tokens
from legato.data import trajectories as logs
from legato.data.spec import Spec
from legato.data.tokens import Layout, Recipe, Windows
from legato.data.trajectories import About, Trajectories, trajectories
from legato.data.windows import BatchSpec
from legato.errors import LegatoError

SPEC = Spec(2, (-1.0,), (1.0,))


def logged(lengths: tuple[int, ...] = (7, 1, 12), ends: tuple[bool, ...] | None = None, seed: int = 0) -> Trajectories:
    """Episodes of random numbers; those of `ends` terminate, all by default, the others are cut."""
    rng = np.random.default_rng(seed)
    steps = sum(lengths)
    last = np.cumsum(lengths) - 1
    terminations = np.zeros(steps, bool)
    terminations[last] = True if ends is None else ends
    truncations = np.zeros(steps, bool)
    truncations[last] = ~terminations[last]
    return trajectories(
        rng.normal(size=(steps, 2)).astype(np.float32),
        rng.uniform(-1, 1, (steps, 1)).astype(np.float32),
        rng.normal(size=steps).astype(np.float32),
        terminations,
        truncations,
        about=About("logs", low=(-1.0,), high=(1.0,)),
    )


def slow(x: float, edges: np.ndarray) -> int:
    """The last edge that is not above x, kept among the bins: what encoding is, said once more."""
    found = 0
    for i, edge in enumerate(edges):
        if edge <= x:
            found = i
    return min(found, len(edges) - 2)


# --- bins ---


@pytest.mark.parametrize("kind", ["quantile", "uniform"])
@pytest.mark.parametrize("centres", ["middle", "mean"])
def test_encoding_is_its_definition_on_device_and_host(kind: tokens.Bins, centres: tokens.Centres) -> None:
    rng = np.random.default_rng(0)
    rows = np.stack([rng.normal(size=500), rng.integers(0, 3, 500), np.full(500, 2.5)], axis=1).astype(np.float32)
    discretiser = tokens.fit(rows, 20, kind, centres)
    edges = np.asarray(discretiser.edges)
    asked = np.concatenate([rows[:50], rows.min(0)[None], rows.max(0)[None], [[-9, 9, 2.4]], [[9, -9, 2.6]], edges.T])
    asked = asked.astype(np.float32)
    expected = [[slow(x, edges[column]) for column, x in enumerate(row)] for row in asked]
    np.testing.assert_array_equal(tokens.encode(discretiser, asked), expected)
    np.testing.assert_array_equal(discretiser.encode(jnp.asarray(asked)), expected)


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=30, max_size=200),
    st.integers(2, 30),
    st.sampled_from(["quantile", "uniform"]),
    st.sampled_from(["middle", "mean"]),
)
def test_a_token_that_is_read_back_is_itself(
    numbers: list[float], bins: int, kind: tokens.Bins, centres: tokens.Centres
) -> None:
    """Wherever its bin has any width; and no bin is read back as a number outside of it."""
    discretiser = tokens.fit(np.array(numbers, np.float32)[:, None], bins, kind, centres)
    edges, found = np.asarray(discretiser.edges[0]), np.asarray(discretiser.centres[0])
    assert (found >= edges[:-1]).all() and (found <= edges[1:]).all()
    wide = np.flatnonzero(edges[:-1] < edges[1:])
    np.testing.assert_array_equal(tokens.encode(discretiser, found[wide, None])[:, 0], wide)


@pytest.mark.parametrize("steps", [200, 400, 5049, 5050, 5051])
def test_quantiles_hold_equally_many(steps: int) -> None:
    """Also where the number of steps is just above or below a multiple of the bins, unlike strides of a sorted list."""
    x = np.random.default_rng(1).normal(size=(steps, 1)).astype(np.float32)
    count = np.bincount(tokens.encode(tokens.fit(x, 100), x)[:, 0], minlength=100)
    assert len(count) == 100 and set(count) <= {steps // 100, steps // 100 + 1}


def test_uniform_bins_are_equally_wide() -> None:
    x = np.array([[0.0], [1.0], [10.0]], np.float32)
    found = tokens.fit(x, 5, "uniform")
    np.testing.assert_allclose(found.edges[0], [0, 2, 4, 6, 8, 10])
    np.testing.assert_allclose(found.decode(found.encode(jnp.asarray([[3.9], [99.0], [-99.0]])))[:, 0], [3, 9, 1])
    np.testing.assert_array_equal(found.outside(jnp.asarray([[10.0], [10.1], [-0.1], [0.0]]))[:, 0], [0, 1, 1, 0])
    np.testing.assert_array_equal(found.outside(jnp.asarray([[14.9], [15.1], [-5.1]]), 0.5)[:, 0], [0, 1, 1])


def test_the_mean_of_a_bin_is_nearer_to_its_data_than_its_middle() -> None:
    """An exact value that the data often has, a saturated action say, is read back nearly as it was."""
    x = np.random.default_rng(2).normal(scale=2.0, size=(4000, 1)).clip(-1, 1).astype(np.float32)
    error = {}
    for kind in ("middle", "mean"):
        found = tokens.fit(x, 20, "uniform", kind)
        error[kind] = float(np.square(np.asarray(found.decode(found.encode(jnp.asarray(x)))) - x).mean())
        if kind == "mean":
            assert float(found.decode(found.encode(jnp.ones(1)))[0]) > 0.99
    assert error["mean"] < 0.5 * error["middle"]


def test_a_constant_is_read_back_and_choices_have_bins_of_their_own() -> None:
    rows = np.stack([np.full(60, 3.25), np.arange(60) % 4], axis=1).astype(np.float32)
    for kind in ("quantile", "uniform"):
        found = tokens.fit(rows, 10, kind, choices={1: 4})
        np.testing.assert_array_equal(found.encode(jnp.asarray(rows))[:, 1], np.arange(60) % 4)
        np.testing.assert_array_equal(found.decode(found.encode(jnp.asarray(rows))), rows)


@pytest.mark.parametrize(
    ("rows", "bins", "kind", "choices", "words"),
    [
        (np.zeros((9, 1)), 10, "quantile", {}, "9 steps cannot fill 10 bins"),
        (np.zeros((9, 1)), 1, "uniform", {}, "at least 2 bins"),
        (np.array([[0.0], [np.nan]]), 2, "uniform", {}, "finite"),
        (np.zeros((0, 1)), 2, "uniform", {}, "0 steps"),
        (np.zeros((30, 1)), 10, "quantile", {0: 11}, "11 discrete actions"),
    ],
)
def test_what_falls_into_no_bins_is_said(rows: np.ndarray, bins: int, kind, choices: dict, words: str) -> None:
    with pytest.raises(LegatoError, match=words):
        tokens.fit(rows.astype(np.float32), bins, kind, choices=choices)


def test_tokens_take_a_byte_where_the_stop_fits_too() -> None:
    x = np.random.default_rng(3).normal(size=(1000, 1)).astype(np.float32)
    assert tokens.encode(tokens.fit(x, 255), x).dtype == np.uint8
    wide = tokens.encode(tokens.fit(x, 256), x)
    assert wide.dtype == np.uint16 and wide.max() == 255


# --- columns ---


def test_values_are_what_comes_after_a_steps_own_reward() -> None:
    data = logged()
    found = tokens.values(data, 0.9)
    for i in range(len(data)):
        r = logs.rewards(data)[data.episode(i)]
        expected = [sum(0.9 ** (k - t - 1) * r[k] for k in range(t + 1, len(r))) for t in range(len(r))]
        np.testing.assert_allclose(found[data.episode(i)], expected, atol=1e-5)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.floats(0.5, 1.0), st.integers(0, 9))
def test_paid_and_promised_are_the_same_sum_at_every_step(lengths: list[int], gamma: float, seed: int) -> None:
    """sum_{k <= t} gamma^k r_k + gamma^(t+1) V_t is the episode's return, whatever t."""
    data = logged(tuple(lengths), seed=seed)
    promised = tokens.values(data, gamma)
    for i in range(len(data)):
        r, v = logs.rewards(data)[data.episode(i)].astype(float), promised[data.episode(i)]
        discount = gamma ** np.arange(len(r))
        total = np.cumsum(discount * r) + gamma * discount * v
        np.testing.assert_allclose(total, total[0], atol=1e-4)


def test_a_penalty_replaces_the_reward_of_true_ends_only() -> None:
    data = logged((3, 4), (True, False))
    layout = Layout(2, 1)
    plain, penalised = (tokens.table(data, layout, 0.9, penalty) for penalty in (None, -100.0))
    changed = np.argwhere(plain[:, 3] != penalised[:, 3])
    assert changed.tolist() == [[2]] and penalised[2, 3] == -100
    np.testing.assert_allclose(penalised[:3, 4], [plain[1, 3] + 0.9 * -100, -100, 0], rtol=1e-5)
    np.testing.assert_array_equal(plain[3:], penalised[3:])
    np.testing.assert_array_equal(plain[:, :3], np.concatenate([data.observations, data.actions], axis=1))
    assert logs.rewards(data)[2] == plain[2, 3]  # the data itself stays


def test_without_reward_and_value_no_rewards_are_needed() -> None:
    data = replace(logged(), rewards=None)
    assert tokens.table(data, Layout(2, 1, False, False)).shape == (20, 3)
    with pytest.raises(LegatoError, match="no rewards"):
        tokens.table(data, Layout(2, 1))


# --- windows ---


def made(data: Trajectories, **recipe) -> tokens.Encoded:
    return tokens.prepare(data, SPEC, Recipe(bins=5, **recipe))[1]


def test_windows_are_the_steps_and_stops_after_the_end() -> None:
    """After a termination the stop is to be learnt, after a cut it is not."""
    data = logged((7, 1, 12), (True, True, False))
    source = made(data)
    found = source.windows(jnp.arange(data.steps), 4)
    for row in range(data.steps):
        episode = int(np.searchsorted(data.offsets, row, side="right")) - 1
        end = int(data.offsets[episode + 1])
        for step in range(4):
            there = row + step < end
            expected = source.tokens[row + step] if there else np.full(5, 5)
            np.testing.assert_array_equal(found.tokens[row, step], expected)
            assert bool(found.known[row, step]) == (there or episode < 2)
        np.testing.assert_array_equal(found.goals[row], source.tokens[end - 1, :2])


def test_the_goal_is_where_an_episode_ended() -> None:
    """After the last step, where that was recorded."""
    data = logged()
    after = replace(data, final_observations=data.observations[[3, 9, 14]])
    source = made(after)
    found = source.windows(jnp.asarray(data.offsets[:-1]), 2)
    np.testing.assert_array_equal(found.goals, source.tokens[np.array([3, 9, 14]), :2])


def test_later_goals_are_all_that_follow_the_window_alike() -> None:
    """Of an episode that the window outlasts, its end."""
    data = logged((9, 4))
    ends = data.observations[[0, 9]]
    bins = 13  # one step to a bin, so that a token names its row
    source = tokens.prepare(replace(data, final_observations=ends), SPEC, Recipe(bins=bins), later=True)[1]
    found: Windows = source.draw(jax.random.key(0), BatchSpec(6000, 3))
    row = {int(token): i for i, token in enumerate(source.tokens[:, 0])}
    seen: dict[int, list[int]] = {}
    for first, goal in zip(np.asarray(found.tokens[:, 0, 0]), np.asarray(found.goals[:, 0]), strict=True):
        seen.setdefault(row[int(first)], []).append(row[int(goal)])
    for start in range(13):
        last = 0 if start < 9 else 9  # what `ends` repeat
        after = [*range(start + 3, 9 if start < 9 else 13), last]
        assert set(seen[start]) == set(after)
        if len(after) > 1:
            assert stats.chisquare([seen[start].count(goal) for goal in after]).pvalue > 0.001


def test_every_step_begins_a_window_as_often() -> None:
    data = logged((5, 1, 9))
    bins = 15  # one row per bin: a window's first token says where it begins
    source = tokens.prepare(data, SPEC, Recipe(bins=bins))[1]
    found: Windows = source.draw(jax.random.key(0), BatchSpec(3000, 2))
    assert stats.chisquare(np.bincount(np.asarray(found.tokens[:, 0, 0]), minlength=bins)).pvalue > 0.01


# --- the file ---


def test_encoded_sets_are_kept_and_made_again_when_anything_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = []
    fit = tokens.fit
    monkeypatch.setattr(tokens, "fit", lambda *args: fitted.append(1) or fit(*args))
    data, kept = logged(), tmp_path / "tokens.npz"

    def prepared(recipe: Recipe, data: Trajectories = data, name: str = "a") -> np.ndarray:
        return np.asarray(tokens.prepare(data, SPEC, recipe, kept, name)[1].tokens)

    first = prepared(Recipe(bins=5))
    np.testing.assert_array_equal(prepared(Recipe(bins=5)), first)
    assert len(fitted) == 1
    for count, (recipe, name) in enumerate(
        [(Recipe(bins=4), "a"), (Recipe(bins=4, gamma=0.5), "a"), (Recipe(bins=4, gamma=0.5), "b")], start=2
    ):
        prepared(recipe, name=name)
        assert len(fitted) == count
    content = kept.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"no archive"):
        kept.write_bytes(damaged)
        np.testing.assert_array_equal(prepared(Recipe(bins=5)), first)
        assert kept.read_bytes() != damaged


def test_a_pipe_in_the_place_of_the_kept_file_is_not_waited_for(tmp_path: Path) -> None:
    data, kept = logged(), tmp_path / "tokens.npz"
    expected = np.asarray(tokens.prepare(data, SPEC, Recipe(bins=5))[1].tokens)
    os.mkfifo(kept)
    np.testing.assert_array_equal(tokens.prepare(data, SPEC, Recipe(bins=5), kept, "a")[1].tokens, expected)
    assert kept.is_file()  # made again


def test_a_full_disk_costs_the_file_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: IO[bytes], **_: np.ndarray) -> None:
        file.write(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    data, kept = logged(), tmp_path / "tokens.npz"
    expected = np.asarray(tokens.prepare(data, SPEC, Recipe(bins=5))[1].tokens)
    monkeypatch.setattr(np, "savez", full)
    np.testing.assert_array_equal(tokens.prepare(data, SPEC, Recipe(bins=5), kept, "a")[1].tokens, expected)
    assert not [*tmp_path.iterdir()]
