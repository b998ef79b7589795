"""Columns of a table: which are what, and the values that they hold."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Literal

import numpy as np

from legato.data.arrays import CHOICES
from legato.data.checks import warn_of_digits
from legato.data.spec import UNBOUNDED
from legato.data.storage import some
from legato.errors import LegatoError, unknown


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are what, and where its episodes end."""

    observations: tuple[str, ...] = ()
    """columns of the observation in this order; `*` stands for any characters"""
    actions: tuple[str, ...] = ()
    """columns of the action, likewise"""
    reward: str | None = None
    """what was paid for the row's action; without one the logs can be imitated only"""
    terminal: str | None = None
    """1 in the row whose action ended the episode by itself: nothing is earned after it"""
    episode: str | None = None
    """an episode begins where this column changes"""
    episode_length: int | None = None
    """rows of an episode, for logs without such a column"""
    time: str | None = None
    """seconds, or dates and times of ISO 8601; not observed, but used to see whether rows are missing"""
    gap: float | None = None
    """seconds, or such as "5min": a row that comes later than so long after the one before begins an episode"""
    low: tuple[float, ...] = ()
    """lower bounds of the actions, one for all or one for each"""
    high: tuple[float, ...] = ()
    """upper bounds"""
    choices: int | None = None
    """how many discrete actions there are, for one column of whole numbers"""
    start: int = 0
    """the number of the first discrete action"""
    missing: Literal["error", "drop", "hold"] = "error"
    """rows with empty cells: refused, left out (the episode ends before them), or given the last value"""
    clip_actions: bool = False
    """move actions that lie outside their bounds to them"""
    environment: str | None = None
    """Gymnasium id of the environment that the logs are of"""

    def __post_init__(self) -> None:
        for name in ("observations", "actions", "low", "high"):
            given = getattr(self, name)
            if isinstance(given, str | int | float):  # one of them
                object.__setattr__(self, name, (given,))
            elif not isinstance(given, tuple):
                object.__setattr__(self, name, tuple(given))
        if isinstance(self.gap, str):
            object.__setattr__(self, "gap", seconds(self.gap))
        if self.missing not in ("error", "drop", "hold"):
            raise unknown("way with missing values", str(self.missing), ("error", "drop", "hold"))
        ways = [name for name in ("episode", "episode_length", "gap") if getattr(self, name) is not None]
        if len(ways) > 1:
            raise LegatoError(f"episodes end by one rule: leave out {ways[0]} or {ways[1]}")
        if self.gap is not None and self.time is None:
            raise LegatoError("a gap is one of time: say which column that is, with time")
        if self.gap is not None and not self.gap > 0:
            raise LegatoError(f"gap is positive, in seconds; {self.gap:g} was given")
        if self.episode_length is not None and self.episode_length < 1:
            raise LegatoError(f"episode_length is at least 1; {self.episode_length} was given")
        if bool(self.low) != bool(self.high):
            raise LegatoError("bounds have a low and a high")
        if self.clip_actions and not self.low:
            raise LegatoError("actions are clipped to bounds: give low and high too")
        for name in ("low", "high"):
            for bound in getattr(self, name):
                if isinstance(bound, bool) or not isinstance(bound, Real) or not abs(float(bound)) <= UNBOUNDED:
                    raise LegatoError(f"{name} is a number that bounds something; {bound!r} was given")
        for name in ("choices", "episode_length"):
            given = getattr(self, name)
            if given is not None and (isinstance(given, bool) or not isinstance(given, int)):
                raise LegatoError(f"{name} is a whole number; {given!r} was given")
        if self.choices is not None and not 1 <= self.choices <= CHOICES:
            raise LegatoError(f"choices is a whole number from 1 to {CHOICES}; {self.choices} was given")
        if self.choices is not None and self.low:
            raise LegatoError("discrete actions have no bounds: leave out choices, or low and high")


@dataclass
class Table:
    """Columns as they were read: texts, numbers as float32, and exact where they mark rows (time, episode)."""

    name: str
    header: list[str]
    columns: dict[str, np.ndarray]
    named: bool = True
    """has it a header? Without one its columns are 0, 1, 2, ..."""

    @property
    def rows(self) -> int:
        return len(next(iter(self.columns.values()), ()))


def seconds(text: str) -> float:
    """A length of time as it is typed: `60`, `60s`, `5min`, `2h`. Raises `LegatoError` for what is none."""
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz ")
    unit = text[len(number) :].strip()
    try:
        return float(number) * {"": 1, "ms": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86400}[unit]
    except (ValueError, KeyError):
        raise LegatoError(f"'{text}' is no length of time; write such as 60s, 5min or 2h") from None


def needed_columns(name: str, header: Sequence[str], columns: Columns) -> list[str]:
    """The columns that are needed, each once."""
    if not columns.observations or not columns.actions:
        raise LegatoError(
            f"which columns of '{name}' are observations, which actions? give `observations` and `actions` some "
            f"of: {some(header, 40)}"
        )
    found = [*match_columns(name, header, columns.observations), *match_columns(name, header, columns.actions)]
    if twice := {column for column in found if found.count(column) > 1}:
        raise LegatoError(f"'{min(twice)}' is named twice among observations and actions")
    for given in (columns.reward, columns.terminal, columns.episode, columns.time):
        if given is not None and given not in header:
            raise LegatoError(f"'{name}' has no column '{given}'; it has {some(header, 40)}")
        found += [given] if given is not None else []
    return list(dict.fromkeys(found))


def match_columns(name: str, header: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The columns that fit the patterns, in their order. Raises `LegatoError` for one that none fits."""
    found: list[str] = []
    for pattern in patterns:
        there = [pattern] if pattern in header else [c for c in header if fnmatch.fnmatchcase(c, pattern)]
        if not there:
            raise LegatoError(f"'{name}' has no column '{pattern}'; it has {some(header, 40)}")
        found += there
    return found


def matrix(table: Table, names: Sequence[str], needed: Sequence[str | None]) -> np.ndarray:
    """Columns side by side in float32; those that are not `needed` any more are let go, one by one."""
    shapes = [np.shape(table.columns[column])[1:] for column in names]
    places = np.cumsum([0, *(shape[0] if shape else 1 for shape in shapes)])
    result = np.empty((table.rows, int(places[-1])), np.float32)
    for column, first, last in zip(names, places[:-1], places[1:], strict=True):
        array = table.columns[column] if column in needed else table.columns.pop(column)
        if array.dtype.kind == "U":
            raise LegatoError(f"'{table.name}': '{column}' holds texts such as '{str(array[0])[:50]}', no numbers")
        if column in needed and array.ndim == 1:  # which is not in float32
            warn_of_digits(table.name, column, array)
        with np.errstate(over="ignore"):
            result[:, first:last] = array if array.ndim == 2 else array[:, None]
    return result
