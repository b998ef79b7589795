"""The ring of steps and states: what follows a row, what is overwritten, what a replay costs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from legato.data import recurrent_replay
from legato.data.recurrent_replay import Episode, StateTransition
from legato.data.spec import Spec
from legato.errors import LegatoError
from legato.losses.returns import n_step_reward

SPEC, STATE = Spec(2, (-1.0,), (1.0,)), 3


def moments(first: int, steps: int) -> StateTransition:
    """An episode whose every number says which row it is; its last row is no step."""
    n = np.arange(first, first + steps + 1, dtype=np.float32)
    columns = [np.stack([n, n + 0.5], -1), n[:, None] + 0.1, n[:, None] + 0.2, n + 0.3, n + 0.4]
    valid = (np.arange(steps + 1) < steps).astype(np.float32)
    state = n[:, None] + np.arange(STATE) / 8
    return StateTransition(*map(jnp.asarray, (*columns, np.ones(steps + 1, np.float32), valid, state)))


def filled(capacity: int, lengths: list[int]) -> recurrent_replay.RecurrentReplay:
    replay, first = recurrent_replay.create(SPEC, STATE, capacity), 0
    for steps in lengths:
        rows = recurrent_replay.pack(moments(first, steps))
        rows = jnp.concatenate([rows, jnp.full((2, rows.shape[1]), jnp.nan)])  # padding, which must not be kept
        replay = recurrent_replay.add(replay, rows, jnp.asarray(steps + 1))
        first += steps + 1
    return replay


def test_what_is_packed_is_unpacked() -> None:
    given = moments(5, 3)
    found = recurrent_replay.unpack(recurrent_replay.pack(given), SPEC)
    for name in given.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(found, name), getattr(given, name), err_msg=name)


@pytest.mark.parametrize(("capacity", "lengths"), [(20, [4, 3]), (7, [4, 3]), (9, [4, 3, 2, 5])])
def test_what_follows_a_step_is_the_next_of_its_episode(capacity: int, lengths: list[int]) -> None:
    """Also where the ring goes round, and where an episode's beginning is overwritten. Nothing is padding."""
    replay = filled(capacity, lengths)
    now, after, ahead = jax.jit(recurrent_replay.sample, static_argnums=2)(replay, jax.random.key(0), 500)
    np.testing.assert_array_equal(ahead.reward, now.reward[None])
    valid = np.asarray(now.valid) == 1
    assert not np.isnan(now.observation).any()
    np.testing.assert_array_equal(after.observation[valid, 0], now.observation[valid, 0] + 1)
    np.testing.assert_array_equal(after.state[valid], now.state[valid] + 1)
    total = sum(lengths) + len(lengths)
    ends = set(np.cumsum(np.array(lengths) + 1) - 1)
    kept = set(range(max(0, total - capacity), total))
    assert set(np.asarray(now.observation[:, 0]).astype(int)) == kept  # 500 draws of at most 18
    assert set(np.asarray(now.observation[~valid, 0]).astype(int)) == kept & ends


@pytest.mark.parametrize("terminated", [True, False])
def test_several_steps_are_one_with_their_rewards_discounted(terminated: bool) -> None:
    """Up to the end of the episode, which is the environment's or a time limit's; by a walk along the rows."""
    lengths, gamma, steps = [4, 3, 5], 0.5, 3
    replay = filled(20, lengths)
    ends = np.cumsum(np.array(lengths) + 1) - 1
    column = SPEC.observation_size + 2 * SPEC.action_size + 2
    if terminated:
        replay = recurrent_replay.RecurrentReplay(replay.rows.at[ends - 1, column].set(0.0), replay.added, SPEC)
    now, after, ahead = recurrent_replay.sample(replay, jax.random.key(0), 200, steps)
    reward, n = n_step_reward(ahead.reward, ahead.valid, gamma)
    continues = ahead.continues.prod(axis=0)
    for i in np.flatnonzero(np.asarray(now.valid)):
        row = int(now.observation[i, 0])
        end = int(ends[ends >= row][0])
        last = min(row + steps, end)
        assert float(after.observation[i, 0]) == last
        assert int(n[i]) == last - row
        paid = sum(gamma ** (k - row) * (k + 0.3) for k in range(row, last))
        assert float(reward[i]) == pytest.approx(paid, rel=1e-5)
        assert float(continues[i]) == (0.0 if terminated and last == end else 1.0)


def test_an_episodes_returns() -> None:
    """What was asked for and what was earned from there on, in steps of an episode of 3 in 6 rows."""
    rewards = jnp.asarray([1.0, 2.0, 4.0, 9.0, 9.0, 9.0])
    shapes = jnp.zeros((6, 2)), jnp.zeros((6, 1)), rewards
    episode = Episode(*shapes, jnp.asarray(3), jnp.asarray(True), jnp.asarray(10.0))
    np.testing.assert_array_equal(episode.returns_to_go(), [7, 6, 4, 0, 0, 0])
    np.testing.assert_array_equal(episode.returns_to_go(0.5), [3, 4, 4, 0, 0, 0])
    np.testing.assert_array_equal(episode.target_returns_to_go(), [10, 9, 7, 3, 3, 3])
    np.testing.assert_array_equal(episode.target_returns_to_go(0.5)[:4], [10, 18, 32, 56])


def test_a_replay_that_does_not_fit_is_refused_with_what_would() -> None:
    row = recurrent_replay.width(SPEC, 1000)
    assert recurrent_replay.checked_size(50, row, 4 * 50 * row, 50, smaller="train less") == 4 * 50 * row
    with pytest.raises(LegatoError, match=r"lower `capacity` to 49, train less, or raise `replay_gib`"):
        recurrent_replay.checked_size(50, row, 4 * 50 * row - 1, 50, smaller="train less")
    with pytest.raises(LegatoError, match=r"allowed: lower `episodes`, or"):
        recurrent_replay.checked_size(50, row, 4 * 50 * row - 1, 60_000, smaller="lower `episodes`")
