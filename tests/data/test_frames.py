"""Images in a replay buffer, against a Python list of all that ever happened."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from legato.data import frames as image_frames
from legato.data import replay as buffer
from legato.data.frames import frames_kept
from legato.data.replay import Replay
from legato.data.spec import Spec
from legato.data.trajectories import About

SPEC = Spec(6, (-1.0,), (1.0,)).with_images((2, 3))
add = jax.jit(buffer.add)


class Life(NamedTuple):
    """Rows of several environments in turn, and how many of them begin an episode."""

    rows: np.ndarray
    begins: np.ndarray


def life(members: int, steps: int, ends: float, seed: int = 0) -> Life:
    """No two images are the same; half of the episodes that end terminate, the others are truncated."""
    rng = np.random.default_rng(seed)
    count = 0

    def image() -> np.ndarray:
        nonlocal count
        count += 1
        return np.array([*divmod(count, 251), *rng.integers(256, size=4)], np.uint8)

    rows, begins = [], []
    state: list[tuple[np.ndarray, float] | None] = [None] * members
    for t in range(steps):
        for member in range(members):
            known = state[member]
            begins.append(known is None)
            s, before = (image(), 0.0) if known is None else known
            action, s_next, over = (t + 1) / 1000, image(), rng.random() < ends
            terminated = over and rng.random() < 0.5
            rows.append([*s, action, before, t + 0.5, *s_next, 1.0 - terminated])
            state[member] = None if over else (s_next, action)
    return Life(np.array(rows, np.float32), np.array(begins))


def filled(found: Life, capacity: int, members: int, at_once: int) -> Replay:
    """A buffer to which the rows were added, so many at once, padded by two that are not real."""
    replay = buffer.create(SPEC, capacity, members)
    padding = np.full((2, found.rows.shape[1]), 77, np.float32)
    for i in range(0, len(found.rows), at_once):
        part = np.concatenate([found.rows[i : i + at_once], padding])
        replay = add(replay, buffer.split_images(part, SPEC), jnp.array(len(part) - 2))
    return replay


def drawable(replay: Replay) -> np.ndarray:
    """The numbers of the rows that can be drawn."""
    return np.arange(int(replay.added) - int(replay.size), int(replay.added))


def held_against(replay: Replay, rows: np.ndarray, numbers: np.ndarray) -> None:
    found = replay.transitions(jnp.asarray(numbers % replay.capacity))
    assert found.observation.dtype == found.next_observation.dtype == jnp.uint8
    columns = (found.observation, found.action, found.previous_action, found.reward[:, None], found.next_observation)
    np.testing.assert_array_equal(
        np.concatenate([*map(np.asarray, columns), np.asarray(found.continues)[:, None]], axis=1), rows[numbers]
    )


@pytest.mark.parametrize("capacity", [500, 64, 30])
@pytest.mark.parametrize(("members", "at_once"), [(1, 1), (1, 7), (3, 3), (3, 12)])
def test_every_row_that_can_be_drawn_is_the_one_that_was_added(members: int, at_once: int, capacity: int) -> None:
    """Before and after the ring has come round; truncated episodes keep their last images."""
    found = life(members, 72, ends=0.1)
    replay = filled(found, capacity, members, at_once)
    numbers = drawable(replay)
    assert len(numbers) >= 0.9 * min(capacity, len(found.rows))
    held_against(replay, found.rows, numbers)
    drawn = jax.jit(buffer.sample, static_argnums=2)(replay, jax.random.key(0), 40 * capacity)
    rewards = np.unique(np.asarray(drawn.reward))
    np.testing.assert_array_equal(rewards, np.unique(found.rows[numbers, 8]))


@pytest.mark.parametrize(("members", "at_once"), [(1, 1), (1, 7), (3, 3), (3, 12)])
def test_an_image_is_stored_once(members: int, at_once: int) -> None:
    """As many images as steps, and one more for each episode that begins."""
    found = life(members, 60, ends=0.2)
    replay = filled(found, 400, members, at_once)
    assert replay.frames is not None
    assert int(replay.frames.added) == len(found.rows) + found.begins.sum()
    assert replay.frames.bytes.dtype == jnp.uint8
    assert replay.frames.bytes.nbytes == frames_kept(400, members) * SPEC.observation_size < 1.2 * 400 * 6


def test_of_short_episodes_the_oldest_rows_go_first() -> None:
    """Each of one step, so that every row needs two images: fewer rows than the capacity, and none of them wrong."""
    found, capacity = life(1, 300, ends=1.0), 100
    replay = filled(found, capacity, 1, 5)
    numbers = drawable(replay)
    assert len(numbers) == frames_kept(capacity, 1) // 2
    held_against(replay, found.rows, numbers)
    drawn = buffer.sample(replay, jax.random.key(0), 2000)
    np.testing.assert_array_equal(np.unique(np.asarray(drawn.reward)), found.rows[numbers, 8])


def test_an_episode_that_begins_where_the_last_one_ended_is_told_apart_by_what_is_stored() -> None:
    """Its first image is the same: shown again, not stored again, and right all the same."""
    a, b = np.arange(6), np.arange(6) + 10
    rows = np.array([[*a, 0.5, 0.0, 1.0, *b, 0.0], [*b, 0.25, 0.0, 2.0, *a, 1.0]], np.float32)
    replay = add(buffer.create(SPEC, 4), buffer.split_images(rows, SPEC), jnp.array(2))
    assert replay.frames is not None
    assert int(replay.frames.added) == 3
    held_against(replay, rows, np.arange(2))


def test_more_rows_at_once_than_the_ring_has_places_for_are_refused() -> None:
    """All of them might begin episodes; an image would overwrite another one of the same call."""
    found = life(2, 8, ends=1.0)
    with pytest.raises(ValueError, match="16 rows at once need places for 32 images; there are 13"):
        buffer.add(buffer.create(SPEC, 8, 2), buffer.split_images(found.rows, SPEC), jnp.array(16))


def test_a_black_image_is_no_empty_place() -> None:
    """The first of each environment, where the ring is still all zeros."""
    black, seen = np.zeros(6), np.arange(1, 7)
    rows = np.array([[*black, 0.5, 0.0, float(i), *(seen + i), 1.0] for i in range(2)], np.float32)
    replay = add(buffer.create(SPEC, 8, 2), buffer.split_images(rows, SPEC), jnp.array(2))
    held_against(replay, rows, np.arange(2))


def test_sequences_end_where_an_episode_was_truncated() -> None:
    found = life(1, 80, ends=0.2)
    replay = filled(found, 200, 1, 8)
    drawn = buffer.sequences(replay, jax.random.key(1), 500, 5)
    over = np.append(found.begins[1:], True)
    first = np.rint(np.asarray(drawn.steps.reward[0]) - 0.5).astype(int)
    for column, number in zip(np.asarray(drawn.valid).T, first, strict=True):
        end = number + int(np.argmax(over[number:]))
        assert column.sum() == min(end - number + 1, 5)


def test_a_checkpoint_keeps_all_of_it() -> None:
    """And only the part that is filled."""
    found = life(1, 20, ends=0.2)
    replay = jax.tree.map(lambda leaf: leaf[None], filled(found, 64, 1, 4))
    state = buffer.filled_part(replay, 20)
    assert len(state["frames"]["bytes"][0]) == 20 + found.begins.sum()
    again = buffer.refill(jax.tree.map(jnp.zeros_like, replay), state)
    for one, other in zip(jax.tree.leaves(replay), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("ends", [1.0, 0.05])
def test_a_longer_ring_takes_up_what_a_shorter_one_kept(ends: float) -> None:
    """As for a run that is given a later end: images had come round already, and some rows had lost theirs."""
    found, before = life(1, 90, ends=ends), 40
    begun = Life(found.rows[:before], found.begins[:before])
    state = buffer.filled_part(jax.tree.map(lambda leaf: leaf[None], filled(begun, before, 1, 4)), before)
    assert (state["frames"]["added"][0] > frames_kept(before, 1)) == (ends == 1)
    empty = jax.tree.map(lambda leaf: leaf[None], buffer.create(SPEC, 80))
    replay = jax.tree.map(lambda leaf: leaf[0], buffer.refill(empty, state))
    kept = drawable(replay)
    held_against(replay, found.rows, kept)
    for i in range(before, 90, 5):
        replay = add(replay, buffer.split_images(found.rows[i : i + 5], SPEC), jnp.array(5))
        held_against(replay, found.rows, drawable(replay))
    assert drawable(replay)[0] >= kept[0] and len(drawable(replay)) > len(kept)


@pytest.mark.parametrize("capacity", [300, 48])
@pytest.mark.parametrize("members", [1, 3])
def test_the_episodes_in_it_are_found_again(members: int, capacity: int) -> None:
    """As images, with the one after the last step."""
    found = life(members, 60, ends=0.1)
    replay = filled(found, capacity, members, members)
    kept = buffer.filled_part(jax.tree.map(lambda leaf: leaf[None], replay), min(capacity, len(found.rows)))
    kept = jax.tree.map(lambda leaf: leaf[0], kept)
    about = About.of("replay", "an environment", SPEC)
    data = buffer.to_trajectories(kept["rows"], int(kept["added"]), members, SPEC, about, kept["frames"])
    assert data.about.shape == (2, 3)
    assert data.observations.dtype == np.uint8
    assert data.final_observations is not None
    assert data.rewards is not None
    numbers = drawable(replay)
    rows = np.concatenate([found.rows[numbers[numbers % members == member]] for member in range(members)])
    np.testing.assert_array_equal(data.observations, rows[:, :6])
    np.testing.assert_array_equal(data.rewards, rows[:, 8])
    last = data.offsets[1:] - 1
    np.testing.assert_array_equal(data.final_observations, rows[last, 9:15])
    np.testing.assert_array_equal(data.terminations, rows[:, 15] == 0)
    per_member = [numbers[numbers % members == member] for member in range(members)]
    begins = np.concatenate([np.append(True, found.begins[of][1:]) for of in per_member])
    np.testing.assert_array_equal(data.offsets[:-1], np.flatnonzero(begins))


def test_bytes_of_a_row_are_counted() -> None:
    """What is asked of the memory is what is taken."""
    replay = buffer.create(SPEC, 1600, 1)
    assert replay.frames is not None
    taken = replay.rows.nbytes + replay.frames.bytes.nbytes
    assert buffer.row_bytes(SPEC) * 1600 == pytest.approx(taken, rel=0.01)
    assert image_frames.frames_kept(1600, 1) == 1702
