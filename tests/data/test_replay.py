"""The replay buffer against a Python list, and held decisions against slices of whole episodes."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from legato.data import replay as buffer
from legato.data.replay import HeldDecisions, Replay
from legato.data.spec import Spec
from legato.data.trajectories import About

SPEC = Spec(3, (-1.0, -2.0), (1.0, 2.0))
WIDTH = 2 * 3 + 2 * 2 + 2
ROWS = 5  # rows handed over per call; one shape, one compilation
add = jax.jit(buffer.add)
sample = jax.jit(buffer.sample, static_argnums=2)


def rows(numbers: np.ndarray) -> np.ndarray:
    """Packed rows that can be told apart: row n holds n, n + 0.01, n + 0.02, ..."""
    return (np.asarray(numbers)[..., None] + 0.01 * np.arange(WIDTH)).astype(np.float32)


def filled(capacity: int, count: int) -> Replay:
    """A buffer to which the rows 1 ... count were added, one at a time."""
    replay = buffer.create(SPEC, capacity)
    one = jax.jit(lambda replay, i: buffer.add(replay, i + 0.01 * jnp.arange(WIDTH)[None], jnp.array(1)))
    for i in range(1, count + 1):
        replay = one(replay, float(i))
    return replay


def kept(replay: Replay) -> list[int]:
    """The numbers of the rows in the buffer."""
    return sorted(int(n) for n in np.asarray(replay.rows)[:, 0] if n)


# --- stretches of an episode ---


def life(rng: np.random.Generator, members: int, steps: int) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """Rows of several environments in turn, whose episodes end or are cut; and (member, episode,
    step) of each.
    """
    state = [[0, 0] for _ in range(members)]
    made, about = [], []
    for _ in range(steps):
        for member, at in enumerate(state):
            episode, t = at
            here = np.array([member, episode, t], np.float32)
            action = np.array([t + 1, episode], np.float32)
            before = np.array([t, episode], np.float32) if t else np.zeros(2, np.float32)
            ends, cut = rng.random() < 0.15, rng.random() < 0.15
            made.append(np.concatenate([here, action, before, [0.0], here + np.array([0, 0, 1]), [1.0 - ends]]))
            about.append((member, episode, t))
            at[:] = [episode + 1, 0] if ends or cut else [episode, t + 1]
    return np.array(made, np.float32), about


@pytest.mark.parametrize(("members", "capacity"), [(1, 200), (1, 37), (3, 200), (3, 48), (3, 50)])
def test_stretches_never_cross_an_episode_and_stop_no_sooner(members: int, capacity: int) -> None:
    """Before and after the ring has come round."""
    made, about = life(np.random.default_rng(members), members, 40)
    replay, length = buffer.create(SPEC, capacity, members), 6
    replay = buffer.add(replay, jnp.asarray(made[: len(made) // 2]), jnp.array(len(made) // 2))
    replay = buffer.add(replay, jnp.asarray(made[len(made) // 2 :]), jnp.array(len(made) - len(made) // 2))
    kept = set(about[-min(capacity, len(about)) :])
    found = jax.jit(buffer.sequences, static_argnums=(2, 3))(replay, jax.random.key(0), 400, length)
    s, valid = np.asarray(found.steps.observation), np.asarray(found.valid)
    begun = set()
    for i in range(400):
        member, episode, t = (int(x) for x in s[0, i])
        begun.add((member, episode, t))
        for k in range(length):
            there = all((member, episode, t + j) in kept for j in range(k + 1))
            assert valid[k, i] == there
            if there:
                np.testing.assert_array_equal(s[k, i], [member, episode, t + k])
                np.testing.assert_array_equal(found.steps.next_observation[k, i], [member, episode, t + k + 1])
    assert len(begun) > 0.9 * len(kept)


# --- the ring ---


@given(
    capacity=st.sampled_from([1, 4, 5, 7, 13]),
    counts=st.lists(st.integers(0, ROWS), max_size=12),
)
def test_the_ring_keeps_the_newest_and_drops_the_padding(capacity: int, counts: list[int]) -> None:
    replay, model, number = buffer.create(SPEC, capacity), [], 0
    for count in counts:
        count = min(count, capacity)
        fresh = np.arange(number + 1, number + count + 1)
        padding = np.full(ROWS - count, -1000)  # must be seen nowhere
        replay = add(replay, rows(np.concatenate([fresh, padding])), count)
        model = (model + fresh.tolist())[-capacity:]
        number += count
    assert int(replay.added) == number
    assert int(replay.size) == len(model)
    assert replay.capacity == capacity
    written = np.asarray(replay.rows)[np.asarray(replay.rows)[:, 0] != 0]
    np.testing.assert_array_equal(written[np.argsort(written[:, 0])], rows(np.array(model, int)))


def test_the_oldest_row_is_the_next_to_be_overwritten() -> None:
    replay = filled(4, 6)
    assert kept(replay) == [3, 4, 5, 6]
    assert kept(add(replay, rows(np.arange(7, 12)), 1)) == [4, 5, 6, 7]


def test_a_call_with_more_rows_than_fit_keeps_the_last() -> None:
    replay = add(buffer.create(SPEC, 3), rows(np.arange(1, 6)), 5)
    assert kept(replay) == [3, 4, 5]


def test_adding_nothing_changes_nothing() -> None:
    replay = filled(4, 3)
    after = add(replay, rows(np.full(ROWS, -1)), 0)
    np.testing.assert_array_equal(after.rows, replay.rows)
    assert int(after.added) == 3


# --- sampling ---


@pytest.mark.parametrize(("capacity", "count"), [(16, 10), (10, 10), (10, 27)])
def test_every_stored_row_is_drawn_equally_often(capacity: int, count: int) -> None:
    """Chi-square over 10 rows and 20 000 draws: before the ring is full, when it is, and after it wrapped."""
    drawn = sample(filled(capacity, count), jax.random.key(7), 20_000)
    numbers, frequency = np.unique(np.asarray(drawn.observation)[:, 0].round(), return_counts=True)
    np.testing.assert_array_equal(numbers, np.arange(count - 9, count + 1))
    assert stats.chisquare(frequency).pvalue > 1e-3


@pytest.mark.parametrize("count", [1, 2, 5])
def test_rows_never_written_are_never_drawn(count: int) -> None:
    drawn = sample(filled(1000, count), jax.random.key(0), 2_000)
    assert set(np.asarray(drawn.observation)[:, 0].round()) == set(range(1, count + 1))


def test_a_draw_is_a_whole_transition() -> None:
    """No column comes from another row than its neighbours."""
    drawn = sample(filled(16, 9), jax.random.key(3), 64)
    numbers = np.asarray(drawn.observation)[:, 0].round()
    again = buffer.pack(*(np.asarray(part) for part in jax.tree.leaves(drawn)))
    np.testing.assert_array_equal(again, rows(numbers))


def test_draws_follow_the_key() -> None:
    replay = filled(64, 50)
    first, same, other = (sample(replay, jax.random.key(k), 32).observation for k in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()


# --- packing ---


@settings(max_examples=10)
@given(leading=st.lists(st.sampled_from([1, 3]), max_size=2), seed=st.integers(0, 2**31))
def test_unpack_inverts_pack(leading: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    shapes = ((3,), (2,), (2,), (), (3,), ())
    fields = [rng.normal(size=(*leading, *shape)).astype(np.float32) for shape in shapes]
    packed = buffer.pack(*fields)
    assert packed.shape == (*leading, WIDTH)
    assert packed.dtype == np.float32
    with jax.disable_jit():
        t = buffer.unpack(packed, SPEC)
    found = (t.observation, t.action, t.previous_action, t.reward, t.next_observation, t.continues)
    for got, expected in zip(found, fields, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_the_order_of_columns_is_the_documented_one() -> None:
    """[s | a | a_prev | r | s' | continues]."""
    parts = ([1, 2, 3], [4, 5], [6, 7], 8, [9, 10, 11], 12)
    packed = buffer.pack(*(np.array(part, np.float64) for part in parts))
    np.testing.assert_array_equal(packed, np.arange(1, 13))


# --- held decisions ---


class History(NamedTuple):
    """Steps of several members, and what each member's finished decisions must have become."""

    rows: np.ndarray  # [steps, members, width]
    begins: np.ndarray
    ends: np.ndarray
    expected: list[list[np.ndarray]]


def history(seed: int, members: int, steps: int) -> History:
    """Decisions of random length, each folded on its own from the slice of steps that it covers."""
    rng = np.random.default_rng(seed)
    s, a, p, s_next = (rng.normal(size=(steps, members, size)) for size in (3, 2, 2, 3))
    r, m = rng.normal(size=(steps, members)), rng.integers(0, 2, (steps, members)).astype(float)
    begins, ends = np.zeros((2, steps, members), bool)
    expected: list[list[np.ndarray]] = [[] for _ in range(members)]
    for member in range(members):
        start = 0
        while start < steps:
            stop = start + int(rng.integers(1, 6))  # exclusive
            begins[start, member] = True
            if stop <= steps:
                ends[stop - 1, member] = True
                first, last, i = start, stop - 1, member
                total = r[first:stop, i].sum()
                whole = (s[first, i], a[first, i], p[first, i], [total], s_next[last, i], [m[last, i]])
                expected[member].append(np.concatenate(whole))
            start = stop
    return History(buffer.pack(s, a, p, r, s_next, m), begins, ends, expected)


def check(found: list[list[np.ndarray]], expected: list[list[np.ndarray]]) -> None:
    assert [len(member) for member in found] == [len(member) for member in expected]
    for got, want in zip(found, expected, strict=True):
        if want:
            np.testing.assert_allclose(got, want, atol=1e-5)


@given(seed=st.integers(0, 2**31), members=st.integers(1, 3), cuts=st.sets(st.integers(1, 39), max_size=8))
def test_held_decisions_are_folded_across_calls(seed: int, members: int, cuts: set[int]) -> None:
    past = history(seed, members, 40)
    held, found = HeldDecisions(members, SPEC), [[] for _ in range(members)]
    edges = [0, *sorted(cuts), 40]
    for start, stop in pairwise(edges):
        done = held.fold(past.rows[start:stop], past.begins[start:stop], past.ends[start:stop])
        for member, decisions in zip(found, done, strict=True):
            member.extend(decisions)
    check(found, past.expected)


def test_an_open_decision_survives_in_the_array_that_checkpoints_keep() -> None:
    past = history(5, 3, 40)
    before, after = HeldDecisions(3, SPEC), HeldDecisions(3, SPEC)
    first = before.fold(past.rows[:17], past.begins[:17], past.ends[:17])
    assert not past.ends[16].all()  # something is open
    after.open[:] = before.open
    second = after.fold(past.rows[17:], past.begins[17:], past.ends[17:])
    check([a + b for a, b in zip(first, second, strict=True)], past.expected)


def test_a_finished_decision_does_not_change_when_the_next_is_folded() -> None:
    past = history(6, 1, 12)
    held = HeldDecisions(1, SPEC)
    (found,) = held.fold(past.rows, past.begins, past.ends)
    copies = [decision.copy() for decision in found]
    held.fold(past.rows, past.begins, past.ends)
    np.testing.assert_array_equal(found, copies)


def test_one_step_decisions_are_the_steps_themselves() -> None:
    past = history(7, 2, 10)
    always = np.ones((10, 2), bool)
    found = HeldDecisions(2, SPEC).fold(past.rows, always, always)
    np.testing.assert_array_equal(np.stack(found, axis=1), past.rows)


# --- a ring read back as episodes ---


@pytest.mark.parametrize("told_by", ["observations", "actions"])
@pytest.mark.parametrize("members", [1, 2, 3])
@given(
    lengths=st.lists(st.integers(1, 5), min_size=12, max_size=12),
    terminated=st.lists(st.booleans(), min_size=12, max_size=12),
    steps=st.integers(1, 4),
    capacity=st.integers(1, 12),
)
def test_a_ring_is_read_back_as_episodes(
    members: int, lengths: list[int], terminated: list[bool], steps: int, capacity: int, told_by: str
) -> None:
    """Each member plays every `members`-th episode; either its observations or its actions tell where one ends."""
    o, a = (1, 0) if told_by == "observations" else (0, 1)
    played = []
    for member in range(members):
        numbers = range(member, len(lengths), members)
        played.append([(n, t) for n in numbers for t in range(lengths[n])])
    rows, where = [], []
    for i in range(steps):
        for member in range(members):
            n, t = played[member][i]
            end = t + 1 == lengths[n] and terminated[n]
            seen, done, before = np.array([n + 1, t, 1]) * o, np.array([n + 1, t]) * a, np.array([n + 1, t - 1]) * a
            after = np.array([n + 1, t + 1, 1]) * o
            fields = (seen, done, before if t else np.zeros(2), np.array(n + t / 10), after, np.array(1.0 - end))
            rows.append(buffer.pack(*(np.asarray(field, np.float32) for field in fields)))
            where.append((member, n, t))
    added, filled = len(rows), min(len(rows), capacity)
    ring = np.zeros((filled, WIDTH), np.float32)
    for i, row in enumerate(rows):
        ring[i % filled] = row
    found = buffer.to_trajectories(ring, added, members, SPEC, About("ring", low=(-99.0,) * 2, high=(99.0,) * 2))

    left = sorted(where[added - filled :])
    number = np.array([n for _, n, _ in left])
    expected = np.flatnonzero(np.append(np.diff(number) != 0, True))  # the last row of each episode
    np.testing.assert_array_equal(found.offsets[1:] - 1, expected)
    np.testing.assert_array_equal(found.rewards, np.array([n + t / 10 for _, n, t in left], np.float32))
    died = [terminated[n] and t + 1 == lengths[n] for _, n, t in left]
    np.testing.assert_array_equal(found.terminations, died)
    np.testing.assert_array_equal(np.flatnonzero(found.truncations), [i for i in expected if not died[i]])
    last = np.array([(n + 1, t + 1, 1) for _, n, t in left])[expected] * o
    np.testing.assert_array_equal(found.final_observations, last)
