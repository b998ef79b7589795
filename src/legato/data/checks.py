"""Checks of logged arrays, which name the episode and the step of what could not be learnt from."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from legato.errors import LegatoError, LegatoWarning

if TYPE_CHECKING:
    from legato.data.trajectories import About

CHUNK = 1 << 16  # rows checked at once, so that a memory-mapped set does not have to fit


def warn_of_digits(name: str, column: str, values: np.ndarray) -> None:
    """Warn of values that float32, in which they are kept, can hardly tell apart: times of day, counters."""
    if values.dtype.kind == "f" and values.dtype.itemsize <= 4:
        return
    known = values[np.isfinite(values)]
    if not len(known):
        return
    size, width = float(np.abs(known).max()), float(known.max()) - float(known.min())
    if not 1e-12 * size < width < 1000 * size * 2.0**-23:
        return
    distinct, kept = len(np.unique(known)), len(np.unique(known.astype(np.float32)))
    if 2 * kept < distinct:
        warnings.warn(
            f"{name}: the {distinct} values of '{column}', up to {size:.6g}, are {kept} as float32: subtract its first "
            "value, or leave it out",
            LegatoWarning,
            stacklevel=2,
        )


def check_table(name: str, array: np.ndarray, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Rows of float32 numbers, or of the bytes of images of this `shape`."""
    array = np.asarray(array)
    if shape is not None:
        if array.dtype != np.uint8 or array.shape[1:] not in (shape, (math.prod(shape),)):
            raise LegatoError(
                f"{name} are images of shape {shape} in bytes (uint8), not of shape {array.shape[1:]} and type "
                f"{array.dtype}"
            )
        return array.reshape(len(array), math.prod(shape))
    if array.dtype.kind not in "iuf":
        raise LegatoError(f"{name} are numbers, not {array.dtype}")
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise LegatoError(f"{name} are flat, [steps, numbers], not of shape {array.shape}")
    if len(array) and not array.shape[1]:
        raise LegatoError(f"{name} are of no numbers at all: their shape is {array.shape}")
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused where its place is known
        return np.asarray(array, np.float32)


def chunks(array: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """`CHUNK` rows at a time, each with the number of its first one."""
    return ((i, array[i : i + CHUNK]) for i in range(0, len(array), CHUNK))


def flagged_steps(flags: np.ndarray) -> np.ndarray:
    """The steps at which a flag is up."""
    return np.concatenate([i + np.flatnonzero(part) for i, part in chunks(flags)])


def check_column(name: str, array: np.ndarray, steps: int, about: About, dtype: type) -> np.ndarray:
    array = np.asarray(array)
    if array.shape not in ((steps,), (steps, 1)) or array.dtype.kind not in "biuf":
        raise LegatoError(f"{about.name} has {steps} observations but {name} of shape {array.shape} ({array.dtype})")
    if dtype is bool and array.dtype.kind == "f":
        for i, part in chunks(array):
            if not np.isfinite(part).all():
                at = i + int((~np.isfinite(part)).ravel().argmax())
                raise LegatoError(f"{about.name}: {name} are 0 or 1, and that of step {at} of {steps} is not finite")
    with np.errstate(over="ignore"):
        return np.asarray(array, dtype).reshape(steps)


def rounding_of(*stored: np.ndarray) -> float:
    """How far two numbers may lie apart that were one before they were stored so, in units of their size."""
    kinds = [array.dtype for array in stored]
    return max(8 * float(np.finfo(kind).eps) if kind.kind == "f" else 0.0 for kind in [*kinds, np.dtype(np.float32)])


def contradictions(observations: np.ndarray, next_observations: np.ndarray, rounding: float) -> np.ndarray:
    """The steps whose next observation is not the next step's, by more than `rounding` of a column's largest number."""
    found = [np.zeros(0, np.int64)]
    with np.errstate(all="ignore"):  # what is not finite is refused later
        size = np.max([np.abs(part).max(axis=0) for _, part in chunks(observations)], axis=0)
        for i, part in chunks(observations[1:]):
            after = next_observations[i : i + len(part)]
            apart = (np.abs(after - part) > rounding * size) & np.isfinite(after)
            found.append(i + np.flatnonzero(apart.any(axis=1)))
    return np.concatenate(found)


def check_offsets(about: About, steps: int, over: np.ndarray, offsets: np.ndarray | None) -> np.ndarray:
    if offsets is None:
        return np.unique(np.concatenate([[0], over + 1, [steps]])).astype(np.int64)
    offsets = np.asarray(offsets)
    whole = offsets.dtype.kind in "iu" or (offsets.dtype.kind == "f" and (offsets == np.floor(offsets)).all())
    if not whole or not ((offsets >= 0) & (offsets <= steps)).all():
        offsets = np.zeros(0)
    offsets = offsets.astype(np.int64)
    if offsets.ndim != 1 or len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != steps:
        raise LegatoError(f"{about.name}: the episodes' offsets run from 0 to the number of steps, {steps}")
    if (np.diff(offsets) <= 0).any():
        raise LegatoError(f"{about.name}: episode {int((np.diff(offsets) <= 0).argmax())} has no steps")
    return offsets


def check_actions(about: About, actions: np.ndarray, offsets: np.ndarray, clip: bool, start: int = 0) -> np.ndarray:
    """The actions as they are kept, from given ones whose discrete kind is counted from `start`."""
    if about.choices is not None:
        chosen = np.asarray(actions)
        if chosen.shape not in ((len(chosen),), (len(chosen), 1)) or chosen.dtype.kind not in "biuf":
            raise LegatoError(
                f"{about.name} has one of {about.choices} choices for an action, but actions of shape {chosen.shape} "
                f"({chosen.dtype})"
            )
        chosen = chosen.reshape(len(chosen))
        for i, part in chunks(chosen):
            wrong = (part < start) | (part >= start + about.choices) | (part != np.floor(part))
            if wrong.any():
                at = i + int(wrong.argmax())
                raise LegatoError(
                    f"{about.name}: {place_of(offsets, at)} has action {chosen[at]:g} of {about.choices} discrete ones"
                    + (f", {start} to {start + about.choices - 1}" if start else "")
                )
        return (chosen.astype(np.int64) - start if start else chosen).astype(np.int32, copy=False)
    actions = check_table("actions", actions)
    if about.low is None or about.high is None:
        return actions
    if len(about.low) != actions.shape[1]:
        raise LegatoError(f"{about.name} has actions of {actions.shape[1]} numbers, but bounds for {len(about.low)}")
    low, high = np.array(about.low, np.float32), np.array(about.high, np.float32)
    outside = np.concatenate(
        [i + np.flatnonzero(((part < low) | (part > high)).any(axis=1)) for i, part in chunks(actions)]
    )
    if not len(outside):
        return actions
    if clip:
        return np.clip(actions, low, high)
    step = int(outside[0])
    dimension = int(((actions[step] < low) | (actions[step] > high)).argmax())
    raise LegatoError(
        f"{about.name}: {len(outside)} of {len(actions)} actions lie outside their bounds, first in "
        f"{place_of(offsets, step)}: number {dimension} is {actions[step, dimension]:g}, not in "
        f"[{low[dimension]:g}, {high[dimension]:g}]; `clip_actions` moves them to the bounds"
    )


def check_finite(about: About, name: str, array: np.ndarray, offsets: np.ndarray) -> None:
    for i, part in chunks(array) if array.dtype.kind == "f" else ():
        bad = ~np.isfinite(part).reshape(len(part), -1).all(axis=1)
        if bad.any():
            raise LegatoError(f"{about.name}: the {name} of {place_of(offsets, i + bad.argmax())} are not finite")


def place_of(offsets: np.ndarray, step: int | np.integer) -> str:
    episode = int(np.searchsorted(offsets, step, side="right")) - 1
    return f"step {int(step - offsets[episode])} of episode {episode}"
