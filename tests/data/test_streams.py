"""Windows from the host: those of the device on the same starts, drawn as uniformly, the same whenever begun."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tests.data.test_trajectories import raw

from legato.data import streams, windows
from legato.data.formats import load, save
from legato.data.streams import Stream
from legato.data.trajectories import About, Trajectories, trajectories
from legato.data.windows import BatchSpec, Window
from legato.errors import LegatoError


def made(lengths: list[int], discrete: bool = False, rewards: bool = True) -> Trajectories:
    given, about = raw(lengths), About()
    if discrete:
        given["actions"], about = 1 + np.arange(sum(lengths)) % 4, About(choices=5)
    return trajectories(**{**given, "rewards": given["rewards"] if rewards else None}, about=about)


def equal(a: Window, b: Window) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        np.testing.assert_array_equal(x, y)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "legato-stream"]


STEPS = 24  # in each set below, so that the device compiles a handful of shapes
ROWS = st.integers(0, STEPS - 1)


@given(st.sets(ROWS), st.sampled_from([1, 4, 12]), st.booleans(), st.booleans(), st.lists(ROWS, min_size=6, max_size=6))
def test_the_host_gathers_what_the_device_does(
    begins: set[int], length: int, discrete: bool, rewards: bool, rows: list[int]
) -> None:
    data = made(np.diff(sorted({0, *begins, STEPS})).tolist(), discrete, rewards)
    start = np.array(rows).reshape(3, 2)
    found = streams.window(data, streams.returns_to_go(data, 0.9), start, length)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(found))
    equal(found, windows.window(windows.episodes(data, 0.9), jnp.asarray(start), length))


def test_windows_begin_at_every_step_alike() -> None:
    lengths = [1, 7, 2, 30]
    data = made(lengths)
    seen = np.zeros(data.steps, int)
    for update in range(40):
        at = streams.starts(data, 3, update, BatchSpec(1000, 10))
        seen += np.bincount(at, minlength=data.steps)
    assert stats.chisquare(seen).pvalue > 0.01
    whole = np.concatenate([streams.starts(data, 3, update, BatchSpec(1000, 10, whole=True)) for update in range(40)])
    drawn = np.bincount(whole, minlength=data.steps)
    expected = np.zeros(data.steps)  # of the long episode, stretches of 10 begin at each of 21 steps alike
    for start, length in zip(data.offsets[:-1], lengths, strict=True):
        begins = slice(start, start + max(length - 10, 0) + 1)
        expected[begins] = 40_000 * length / sum(lengths) / max(length - 9, 1)
    assert not drawn[expected == 0].any()
    assert stats.chisquare(drawn[expected > 0], expected[expected > 0]).pvalue > 0.01


@pytest.mark.parametrize("whole", [False, True])
def test_an_update_sees_what_its_seed_and_number_say(whole: bool) -> None:
    data = made([5, 1, 9])
    with Stream(data, [4, 7], BatchSpec(6, 3, whole), chunk=4, gamma=0.5) as stream:
        first, second = stream.take(), next(iter(stream))
    assert first.observations.shape == (4, 2, 6, 3, 2)
    assert first.mask.shape == (4, 2, 6, 3)
    together = jax.tree.map(lambda a, b: np.concatenate([a, b]), first, second)
    togo = streams.returns_to_go(data, 0.5)
    for update in range(8):
        for i, seed in enumerate((4, 7)):
            start = streams.starts(data, seed, update, BatchSpec(6, 3, whole))
            expected = streams.window(data, togo, start, 3)
            equal(jax.tree.map(lambda leaf, u=update, i=i: leaf[u, i], together), expected)
    rows = [streams.starts(data, seed, update, BatchSpec(6, 3)).tolist() for update in range(8) for seed in (4, 7)]
    assert len(set(map(tuple, rows))) == 16
    for begun in (3, 4):  # wherever a stream begins, and however many updates it hands out at once
        with Stream(data, [7], BatchSpec(6, 3, whole), chunk=2, first=begun, gamma=0.5) as stream:
            equal(stream.take(), jax.tree.map(lambda leaf, n=begun: leaf[n : n + 2, 1:], together))


def test_mapped_files_give_what_memory_gives(tmp_path: Path) -> None:
    data = made([5, 1, 9])
    save(data, tmp_path / "logs.arrays")
    with (
        Stream(data, [1], BatchSpec(8, 4), chunk=3) as memory,
        Stream(load(tmp_path / "logs.arrays"), [1], BatchSpec(8, 4), chunk=3) as disk,
    ):
        equal(disk.take(), memory.take())


def test_it_prepares_two_ahead_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared, done, original = [], threading.Semaphore(0), Stream._windows

    def counted(self: Stream, update: int) -> Window:
        found = original(self, update)
        prepared.append(update)
        done.release()
        return found

    monkeypatch.setattr(Stream, "_windows", counted)
    stream = Stream(made([5, 3]), [0], BatchSpec(4, 2), chunk=10, first=30)
    assert all(done.acquire(timeout=60) for _ in range(2))
    assert not done.acquire(timeout=0.05)  # a third waits until one is taken
    assert (prepared, threads()) == ([30, 40], ["legato-stream"])
    stream.take()
    assert done.acquire(timeout=60)
    assert prepared == [30, 40, 50]
    stream.close()
    assert threads() == []
    stream.close()  # once more does no harm
    with pytest.raises(LegatoError, match="the stream was closed: open another"):
        stream.take()


def test_what_goes_wrong_in_the_thread_is_raised_where_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    original = streams.window

    def failing(data: Trajectories, togo: Any, start: Any, length: int) -> Window:
        if len(seen) == 2:
            raise OSError(5, "Input/output error")
        seen.append(start)
        return original(data, togo, start, length)

    seen: list[Any] = []
    monkeypatch.setattr(streams, "window", failing)
    with Stream(made([5, 3]), [0], BatchSpec(4, 2), chunk=1) as stream:
        stream.take()
        stream.take()
        for _ in range(2):  # asked again it says so again, and does not wait for ever
            with pytest.raises(OSError, match="Input/output error"):
                stream.take()
    assert threads() == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_spec": BatchSpec(0, 1)}, "a stream's size must be at least 1; 0 was given"),
        ({"batch_spec": BatchSpec(1, 0)}, "a stream's length must be at least 1; 0 was given"),
        ({"chunk": -2}, "a stream's chunk must be at least 1; -2 was given"),
        ({"first": -1}, "a stream's first must be at least 0; -1 was given"),
        ({"seeds": []}, r"a stream needs seeds, none of them negative; \[\] were given"),
        ({"seeds": [1, -1]}, r"a stream needs seeds, none of them negative; \[1, -1\] were given"),
    ],
)
def test_numbers_that_make_no_window(changes: dict[str, Any], words: str) -> None:
    given = {"seeds": [0], "chunk": 1, "batch_spec": BatchSpec(1, 1), **changes}
    with pytest.raises(LegatoError, match=words):
        Stream(made([2]), **given)
    assert threads() == []
