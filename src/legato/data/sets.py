"""Sets of episodes: some of one, two of one, one of several."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from legato.data.bounds import bounds_in_words
from legato.data.trajectories import Trajectories, returns
from legato.errors import LegatoError, LegatoWarning

APART = 30.0  # times: a deviation so much larger in one set than in another, as of degrees and radians


def select(data: Trajectories, episodes: Sequence[int] | np.ndarray) -> Trajectories:
    """The episodes with these numbers, in this order."""
    episodes = np.asarray(episodes, np.int64)
    if len(episodes) == 0:
        raise LegatoError(f"no episode of {data.about.name} is left")
    steps = np.concatenate([np.arange(*data.offsets[[i, i + 1]]) for i in episodes])
    return Trajectories(
        data.observations[steps],
        data.actions[steps],
        None if data.rewards is None else data.rewards[steps],
        data.terminations[steps],
        data.truncations[steps],
        np.concatenate([[0], np.cumsum(data.lengths[episodes])]),
        None if data.final_observations is None else data.final_observations[episodes],
        data.about,
    )


def top(data: Trajectories, fraction: float) -> Trajectories:
    """The episodes of highest return that together hold at most `fraction` of all steps, and one at least (%BC)."""
    if not 0 < fraction <= 1:
        raise LegatoError(f"the best {fraction:g} of the data: a fraction lies above 0 and not above 1")
    order = np.argsort(-returns(data), kind="stable")
    kept = np.cumsum(data.lengths[order]) <= fraction * data.steps
    kept[0] = True
    return select(data, np.sort(order[kept]))


def split(data: Trajectories, fraction: float, seed: int = 0) -> tuple[Trajectories, Trajectories]:
    """Two disjoint sets: `fraction` of the episodes, drawn at random, and the others."""
    first = round(fraction * len(data))
    if not 0 < first < len(data):
        raise LegatoError(f"{fraction:g} of {len(data)} episodes leaves one side without any")
    order = np.random.default_rng(seed).permutation(len(data))
    return select(data, np.sort(order[:first])), select(data, np.sort(order[first:]))


def merge(sets: Sequence[Trajectories], name: str) -> Trajectories:
    """All episodes of several sets, one set after another.

    A `LegatoWarning` says where they differ in bounds, of which the widest are kept, or seem to differ in a unit.
    """
    first = sets[0]
    for other in sets[1:]:
        for what, a, b in (
            ("numbers per observation", first.observations.shape[1], other.observations.shape[1]),
            ("shapes of images", first.about.shape, other.about.shape),
            ("numbers per action", first.actions.shape[1:], other.actions.shape[1:]),
            ("discrete actions", first.about.choices, other.about.choices),
            ("the number of the first discrete action", first.about.start, other.about.start),
            ("rewards", first.rewards is not None, other.rewards is not None),
        ):
            if a != b:
                raise LegatoError(f"{first.about.name} and {other.about.name} differ in {what}: {a} and {b}")

    for other in sets[1:]:
        _warn_of_units(first, other)

    def joined(name: str) -> np.ndarray | None:
        parts = [getattr(data, name) for data in sets]
        return None if any(part is None for part in parts) else np.concatenate(parts)

    same = {data.about.environment for data in sets}
    low, high = (
        None
        if any(d.about.low is None or d.about.high is None for d in sets)
        else tuple(pick(pair) for pair in zip(*bounds, strict=True))
        for pick, bounds in ((min, [d.about.low or () for d in sets]), (max, [d.about.high or () for d in sets]))
    )
    about = replace(first.about, name=name, low=low, high=high)
    if len(same) > 1:
        about = replace(about, environment=None, reference=None)
        known = ", ".join(str(environment or "none named") for environment in sorted(same, key=str))
        text = f"{name} names no environment, as its parts name several: {known}"
        warnings.warn(text, LegatoWarning, stacklevel=2)
    if low is None and any(data.about.low is not None for data in sets):
        warnings.warn(f"{name} has no bounds of actions, as one of its parts has none", LegatoWarning, stacklevel=2)
    starts = np.cumsum([0, *(data.steps for data in sets)])
    offsets = [data.offsets[:-1] + start for data, start in zip(sets, starts, strict=False)]
    flat = {
        name: joined(name)
        for name in ("observations", "actions", "rewards", "terminations", "truncations", "final_observations")
    }
    return Trajectories(offsets=np.concatenate([*offsets, starts[-1:]]), about=about, **cast(dict[str, Any], flat))


def _warn_of_units(one: Trajectories, other: Trajectories) -> None:
    """Warn of bounds that differ, and of numbers whose deviations are so far apart that their units may be two."""
    a, b = one.about, other.about
    if None not in (a.low, b.low) and (a.low, a.high) != (b.low, b.high):
        here, there = (bounds_in_words(d.about.low or (), d.about.high or ()) for d in (one, other))
        what = f"{a.name} bounds its actions by {here}, {b.name} by {there}: the widest are kept"
        warnings.warn(what, LegatoWarning, stacklevel=3)
    for name in ("observations", "actions"):
        kind = one.discrete if name == "actions" else a.shape is not None
        if min(one.steps, other.steps) < 100 or kind:
            continue
        spreads = [getattr(data, name).std(axis=0, dtype=np.float64) for data in (one, other)]
        large, small = np.maximum(*spreads), np.minimum(*spreads)
        far = np.flatnonzero((small > 0) & (large > APART * small))
        if len(far):
            place = int(far[0])
            what = f"{name} number {place} deviates by {spreads[0][place]:.3g} in {a.name}, {spreads[1][place]:.3g}"
            more = f" ({len(far) - 1} more are such)" if len(far) > 1 else ""
            warnings.warn(f"{what} in {b.name}: are they in one unit?{more}", LegatoWarning, stacklevel=3)
