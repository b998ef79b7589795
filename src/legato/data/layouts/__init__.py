"""Arrays as others name them, brought to ours: d3rlpy, Stable-Baselines3, imitation, NeoRL, robomimic, OGBench.

What they call their arrays, how they mark the end of an episode, and what their last row means is decided here, and
each decision is reported in a sentence for a person to check. Nothing that would mean something else is passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from legato.data import hdf5, npy, storage
from legato.data.layouts.flat import read_flat
from legato.data.layouts.grouped import read_d3rlpy, read_robomimic
from legato.data.layouts.names import FLAT, INDICES, SINGLE, Reading
from legato.errors import LegatoError

__all__ = ["Cause", "Reading", "earlier", "read", "refuse_states", "with_cause"]

Cause = Literal["marked", "terminated", "truncated"]


def read(path: Path, *, observe: Sequence[str] = (), layout: str | None = None, length: int | None = None) -> Reading:
    """The arrays of a file in any of the known layouts.

    `observe` names the parts of an observation where a file keeps several (robomimic). `layout="ogbench"` says that
    rows are states, of which a trajectory has one more than actions. With a `length` every episode has so many rows,
    whatever marks ends. Raises `LegatoError` for what is in no layout.
    """
    try:
        found = _read(path, observe, layout, length)
        return found if length is None else _cut(path, found, length)
    except (ValueError, IndexError, KeyError, TypeError) as problem:  # of arrays that are not what their names say
        raise LegatoError(f"the arrays of '{path}' do not fit together: {storage.line(problem)}") from None


def _read(path: Path, observe: Sequence[str], layout: str | None, length: int | None) -> Reading:
    names = FLAT if length is None else [name for name in FLAT if name not in (*SINGLE, *INDICES)]
    if path.suffix == ".npz":
        arrays, held = npy.npz(path, names)
    else:
        held = hdf5.names_in(path)
        grouped = "data" in held and any(name.startswith("demo_") for name in hdf5.names_in(path, "data"))
        if grouped and layout is None:
            return read_robomimic(path, observe)
        if {"columns", "num_episodes", "version"} <= set(held) and layout is None and not observe:
            return read_d3rlpy(path, held)
        arrays, held = hdf5.read_arrays(path, names)
    if observe:
        raise LegatoError(f"'{path}' keeps its observations in one array: leave out observations")
    if layout is None:
        refuse_states(path, held)
    return read_flat(path, arrays, held, layout)


def refuse_states(path: Path, held: Sequence[str]) -> None:
    """Refuse OGBench's files where the layout is not named: their `terminals` are no terminations."""
    if {"qpos", "terminals"} <= set(held) and "rewards" not in held:
        raise LegatoError(
            f"'{path}' looks like OGBench's, whose 'terminals' mark a final state: import it with `layout=ogbench`"
        )


# --- ends of episodes ---


def with_cause(reading: Reading, cause: Cause) -> Reading:
    """The same with every end of an episode a termination, or a truncation; "marked" changes nothing."""
    arrays = reading.arrays
    if cause == "marked":
        return reading
    steps = len(arrays["observations"])
    over = np.zeros(steps, bool)
    for name in ("terminations", "truncations"):
        over |= arrays.get(name, np.zeros(steps, bool))
    if "offsets" in arrays:
        offsets = np.asarray(arrays["offsets"])
        if offsets.ndim != 1 or offsets.dtype.kind not in "iuf" or not ((offsets >= 0) & (offsets <= steps)).all():
            raise LegatoError(f"offsets are rows from 0 to {steps}, at which episodes begin")
        over[offsets[1:].astype(np.int64) - 1] = True
    none = np.zeros(steps, bool)
    ends = {"terminations": over, "truncations": none} if cause == "terminated" else {"truncations": over}
    said = [*reading.decisions, f"every end of an episode counts as {cause}"]
    return Reading({**arrays, "terminations": none, **ends}, said, reading.unused)


def _cut(path: Path, reading: Reading, length: int) -> Reading:
    """The same with an episode of so many rows after another."""
    if "offsets" in reading.arrays:
        raise LegatoError(f"'{path}' keeps every episode by itself: leave out episode_length")
    steps = len(reading.arrays["observations"])
    offsets, rest = np.append(np.arange(0, steps, length), steps), steps % length
    said = [*reading.decisions, f"an episode has {length} rows" + (f", the last one {rest}" if rest else "")]
    marks = [name for name in reading.unused if name in (*SINGLE, *INDICES)]
    said += [f"what marks ends is not read: {', '.join(marks)}"] if marks else []
    unused = [name for name in reading.unused if name not in marks]
    return Reading({**reading.arrays, "offsets": offsets}, said, unused)


def earlier(reading: Reading) -> Reading:
    """The same with every mark of an end one row earlier, for files that set it in the next row."""
    arrays = dict(reading.arrays)
    for name in ("terminations", "truncations"):
        if name in arrays:
            arrays[name] = np.append(arrays[name][1:], False)
    return Reading(arrays, [*reading.decisions, "ends are marked one row late, and moved"], reading.unused)
