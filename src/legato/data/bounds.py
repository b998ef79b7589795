"""What actions may be: their bounds, or how many choices there are."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from legato.data.checks import check_actions, chunks
from legato.data.trajectories import Trajectories
from legato.errors import LegatoError, LegatoWarning


def check_bounds(
    data: Trajectories, low: tuple[float, ...], high: tuple[float, ...], clip_actions: bool = False
) -> Trajectories:
    """The same episodes with these bounds of actions; actions outside are refused, or moved to them.

    Where the data has others, a `LegatoWarning` says so: their unit may be another one.
    """
    about = replace(data.about, low=low, high=high)
    actions = check_actions(about, data.actions, data.offsets, clip_actions)
    if (words := _other_bounds(data, low, high)) is not None:
        warnings.warn(words, LegatoWarning, stacklevel=2)
    return replace(data, actions=actions, about=about)


def _other_bounds(data: Trajectories, low: tuple[float, ...], high: tuple[float, ...]) -> str | None:
    """What to say of actions whose bounds are not these; of -1 and 1, which may be assumed, only if they are used."""
    about = data.about
    if about.low is None or about.high is None or len(about.low) != len(low):
        return None
    width = np.subtract(high, low)
    if all(np.allclose(a, b, rtol=0, atol=1e-5 * width) for a, b in ((about.low, low), (about.high, high))):
        return None
    largest = max((float(np.abs(part).max()) for _, part in chunks(data.actions)), default=0.0)
    if {*about.low, *(-bound for bound in about.high)} == {-1.0} and largest < 0.99:
        return None
    here, there = (bounds_in_words(*bounds) for bounds in ((about.low, about.high), (low, high)))
    return (
        f"{about.name} bounds its actions by {here}, the environment by {there}, which count: if its actions are in "
        "another unit, convert them first"
    )


def bounds_in_words(low: Sequence[float], high: Sequence[float]) -> str:
    """Bounds for people, in one pair where all are the same."""
    pairs = list(dict.fromkeys(f"{a:g} and {b:g}" for a, b in zip(low, high, strict=True)))
    return ", ".join(pairs[:3]) + (", ..." if len(pairs) > 3 else "")


def as_choices(data: Trajectories, choices: int, start: int = 0) -> Trajectories:
    """The same episodes with discrete actions `start` to `start + choices - 1`, which were read as continuous ones.

    Raises `LegatoError` for actions of several numbers, and for others than these.
    """
    about = replace(data.about, low=None, high=None, choices=choices, start=start)
    if data.actions.shape[1:] not in ((), (1,)):
        raise LegatoError(f"{about.name} has actions of {data.actions.shape[1]} numbers, not one of {choices} choices")
    return replace(data, actions=check_actions(about, data.actions, data.offsets, False, start), about=about)
