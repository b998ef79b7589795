"""Latency: which calls are timed, and what is made of the times. No clock of the machine's is read."""

from __future__ import annotations

import time
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from tests.tiny import WIDE, Scribe

from legato.evaluation.latency import History, Latency, Stretch, history, latency
from legato.player import Memory, Player


class Listening(Player):
    """A player that writes down how it was asked."""

    def __init__(self) -> None:
        super().__init__(Scribe(jnp.ones(())), WIDE)
        self.commands: list[Any] = []
        self.calls: list[tuple[Memory, np.ndarray, int]] = []
        self.given: list[Memory] = []

    def begin(self, command: Any = ()) -> Memory:
        self.commands.append(command)
        return super().begin(command)

    def act(self, memory: Memory, observation: np.ndarray, length: int = 1, **rest: Any) -> tuple[np.ndarray, Memory]:
        self.calls.append((memory, observation, length))
        actions, memory = super().act(memory, observation, length, **rest)
        self.given.append(memory)
        return actions, memory


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the calls to come will seem to take."""
    durations: list[float] = []
    now, asked = 0.0, 0

    def clock() -> float:
        nonlocal now, asked
        if asked % 2:
            now += durations[asked // 2]
        asked += 1
        return now

    monkeypatch.setattr(time, "perf_counter", clock)
    return durations


def test_the_timed_calls_are_those_after_the_warm_up(scripted: list[float]) -> None:
    scripted += [9.0] * 3 + [k / 1000 for k in range(1, 101)]
    found = latency(Listening(), 5, calls=100, warmup=3)
    assert found.length == 5
    assert found.mean == pytest.approx(50.5)  # milliseconds
    assert found.p50 == pytest.approx(50.5)
    assert found.p99 == pytest.approx(99.01)
    assert found.per_action == pytest.approx(10.1)


def test_each_call_is_a_users_call(scripted: list[float]) -> None:
    """One decision of the asked length at batch 1, on a new observation, with the memory of the call before."""
    scripted += [0.001] * 12
    player = Listening()
    latency(player, 3, calls=10, warmup=2)
    assert len(player.calls) == 12
    assert {length for _, _, length in player.calls} == {3}
    assert {(o.shape, o.dtype) for _, o, _ in player.calls} == {((3,), np.dtype(np.float32))}
    assert len({o.tobytes() for _, o, _ in player.calls}) == 12
    assert bool(player.calls[0][0].first)
    for (memory, _, _), given in zip(player.calls[1:], player.given, strict=False):
        assert memory is given


def test_fields_are_consistent_on_a_real_clock() -> None:
    found = latency(Listening(), 2, calls=20, warmup=2)
    assert 0 < found.p50 <= found.p99
    assert found.mean > 0
    assert found.per_action == found.p50 / 2
    assert Latency(2, found.mean, found.p50, found.p99) == found


# --- against history ---


def test_stretches_sum_up_all_episodes() -> None:
    times = np.array([np.arange(1.0, 251.0), np.arange(2.0, 252.0)])
    found = History(times, 8).stretches(100)
    assert [(s.first, s.last) for s in found] == [(1, 100), (101, 200), (201, 250)]
    assert [s.mean for s in found] == [51.0, 151.0, 226.0]
    assert [s.p50 for s in found] == [51.0, 151.0, 226.0]
    assert found[0].p99 == pytest.approx(np.percentile(times[:, :100], 99))
    assert found[0] == Stretch(1, 100, 51.0, 51.0, found[0].p99)
    np.testing.assert_array_equal(History(times, 8).medians(100), [[50.5, 150.5, 225.5], [51.5, 151.5, 226.5]])


def test_every_action_of_whole_episodes_is_timed(scripted: list[float]) -> None:
    """In milliseconds, in order; what comes before the first episode is not timed."""
    scripted += [k / 1000 for k in range(1, 13)]
    player = Listening()
    found = history(player, steps=4, episodes=3, warmup=2, command=5.0)
    np.testing.assert_allclose(found.ms, np.arange(1.0, 13.0).reshape(3, 4))
    assert player.commands == [5.0] * 4
    assert {length for _, _, length in player.calls} == {1}
    assert [bool(memory.first) for memory, _, _ in player.calls] == [True, False, *[True, False, False, False] * 3]
    for i in range(1, len(player.calls)):
        if not player.calls[i][0].first:
            assert player.calls[i][0] is player.given[i - 1]
    assert len({o.tobytes() for _, o, _ in player.calls[2:6]}) == 4


def test_memory_is_that_of_one_environment(scripted: list[float]) -> None:
    """A scribe remembers three numbers of four bytes."""
    scripted += [0.001]
    assert history(Listening(), steps=1, episodes=1, warmup=0).memory == 12
