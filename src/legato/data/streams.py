"""Windows drawn on the host from sets that need not fit into memory, prepared ahead by a thread.

The same draws as `windows` makes on the device: windows of K steps, uniform over steps, or whole episodes in proportion
to their lengths. What an update sees follows from its seed and its number alone, so a stream begun at update n goes on
as one that came there.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from legato.data import trajectories as logs
from legato.data.trajectories import Trajectories
from legato.data.windows import BatchSpec, Window
from legato.errors import LegatoError

DEPTH = 2  # windows prepared ahead
MAPPED = 2 << 30  # bytes of mapped files from which on these are streamed instead of put on the device


class Stream:
    """Training data for update after update: `take` gives the windows of the next `chunk` updates.

    data
        The episodes, in memory or in mapped files. Returns-to-go (discounted by `gamma`) are kept in memory, four bytes
        per step; without rewards they are zero.
    seeds
        Each draws windows of its own.
    batch_spec
        What an update of each seed sees: windows from any step on, or whole episodes, of long ones a stretch.
    chunk
        Updates whose windows are handed out together.
    first
        The number of the first update.

    Raises `LegatoError` for numbers that make no window. `close`, or leaving the `with` block, ends the thread.
    """

    def __init__(
        self,
        data: Trajectories,
        seeds: list[int],
        batch_spec: BatchSpec,
        chunk: int,
        first: int = 0,
        gamma: float = 1.0,
    ):
        for name, value, least in (
            ("size", batch_spec.size, 1),
            ("length", batch_spec.length, 1),
            ("chunk", chunk, 1),
            ("first", first, 0),
        ):
            if value < least:
                raise LegatoError(f"a stream's {name} must be at least {least}; {value} was given")
        if not seeds or min(seeds) < 0:
            raise LegatoError(f"a stream needs seeds, none of them negative; {seeds} were given")
        self.data, self.seeds, self.batch_spec, self.chunk, self.first = data, list(seeds), batch_spec, chunk, first
        self.returns_to_go = returns_to_go(data, gamma)
        self._ready: queue.Queue[Window | BaseException | None] = queue.Queue()
        self._room = threading.Semaphore(DEPTH)
        self._closed = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._prepare, name="legato-stream", daemon=True)
        self._thread.start()

    def take(self) -> Window:
        """The next `chunk` updates' windows, as NumPy arrays `[chunk, seeds, size, K, ...]`; waits for them.

        Raises whatever went wrong in the thread, and `LegatoError` when the stream was closed.
        """
        if self._failure is None and not self._closed:
            found = self._ready.get()
            if isinstance(found, BaseException):
                self._failure = found
            elif found is not None:
                self._room.release()
                return found
        if self._failure is not None:
            raise self._failure
        raise LegatoError("the stream was closed: open another to draw more windows")

    def close(self) -> None:
        """End the thread and drop what it prepared. A stream may be closed twice."""
        self._closed = True
        self._room.release()
        self._thread.join()
        waiting, self._ready = self._ready, queue.Queue()
        waiting.put(None)  # for a thread that waits in `take`

    def __iter__(self) -> Iterator[Window]:
        while True:
            yield self.take()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(self) -> None:
        """The thread: as long as there is room, draw and gather the next windows."""
        update = self.first
        while True:
            self._room.acquire()
            if self._closed:
                return
            try:
                found = self._windows(update)
            except BaseException as problem:  # handed to whoever waits for the windows
                self._ready.put(problem)
                return
            self._ready.put(found)
            update += self.chunk

    def _windows(self, update: int) -> Window:
        updates = range(update, update + self.chunk)
        start = np.array(
            [[starts(self.data, seed, update, self.batch_spec) for seed in self.seeds] for update in updates]
        )
        return window(self.data, self.returns_to_go, start, self.batch_spec.length)


def starts(data: Trajectories, seed: int, update: int, batch_spec: BatchSpec) -> Int[np.ndarray, " size"]:
    """The rows at which an update's windows begin: drawn uniformly from all steps, with replacement.

    Of whole episodes each moves to its episode's first step, which draws episodes in proportion to their lengths; where
    an episode is longer than the window, to a random one that leaves as many.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(update,)))
    at = rng.integers(data.steps, size=batch_spec.size)
    if not batch_spec.whole:
        return at
    episode = _episode(data, at)
    return data.offsets[episode] + rng.integers(np.maximum(data.lengths[episode] - batch_spec.length, 0) + 1)


def window(
    data: Trajectories, returns_to_go: Float32[np.ndarray, " steps"], start: Int[np.ndarray, "*batch"], length: int
) -> Window:
    """The windows that begin at these rows, as NumPy arrays: what `windows.window` gathers on the device."""
    episode = _episode(data, start)
    elapsed, left = start - data.offsets[episode], data.offsets[episode + 1] - start
    step = np.arange(length)
    mask = step < left[..., None]
    rows = np.where(mask, start[..., None] + step, start[..., None])  # never into the next episode
    timesteps = np.where(mask, elapsed[..., None] + step, 0)

    def gathered(array: np.ndarray, valid: np.ndarray = mask, rows: np.ndarray = rows) -> Any:
        found = array[rows]
        found[~valid] = 0
        return found

    return Window(
        observations=gathered(data.observations),
        actions=gathered(data.actions),
        previous=gathered(data.actions, mask & (timesteps > 0), np.maximum(rows - 1, 0)),
        returns_to_go=gathered(returns_to_go),
        timesteps=timesteps.astype(np.int32),  # type: ignore[arg-type]
        mask=mask,  # type: ignore[arg-type]
    )


def returns_to_go(data: Trajectories, gamma: float = 1.0) -> Float32[np.ndarray, " steps"]:
    """`trajectories.returns_to_go`, or zeros where there are no rewards."""
    return np.zeros(data.steps, np.float32) if data.rewards is None else logs.returns_to_go(data, gamma)


def _episode(data: Trajectories, rows: Int[np.ndarray, "*batch"]) -> Int[np.ndarray, "*batch"]:
    """The numbers of the episodes in which these rows lie."""
    return np.searchsorted(data.offsets, rows, side="right") - 1


def should_stream(data: Trajectories, when: str) -> bool:
    """Is this set drawn from on the host? Of `auto`: if it is mapped and large."""
    arrays = [array for array in (data.observations, data.actions, data.rewards) if array is not None]
    mapped = any(isinstance(array, np.memmap) for array in arrays)
    return when == "always" or (when == "auto" and mapped and sum(array.nbytes for array in arrays) > MAPPED)
