"""What a dataset holds, in words: sizes, bounds, lengths and returns, and the range of every number."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from legato.data.dataset_statistics import NEAREST, support
from legato.data.formats import load
from legato.data.normaliser import constant_numbers
from legato.data.trajectories import Trajectories, returns
from legato.errors import quantity

MOST = 60  # numbers of an observation or action that are listed


@dataclass(frozen=True)
class DatasetReport:
    """What `info` says of a dataset."""

    summary: tuple[tuple[str, str], ...]
    """of the set as a whole: a name and a text each, such as `steps`, `1000`"""
    ranges: tuple[tuple[str, ...], ...]
    """of every number of observations and actions: name, least, most, mean, deviation, and what is notable about it"""


def info(source: str | Path, *, clip_actions: bool = False, download: bool = False) -> DatasetReport:
    """Say what a dataset holds: episodes, sizes, bounds, lengths and returns. Reads it as `load` does.

        for name, text in legato.data.info("logs.npz").summary:
            print(name, text)

    Raises `LegatoError` for what `load` refuses.
    """
    return report(load(source, clip_actions=clip_actions, download=download))


def report(data: Trajectories) -> DatasetReport:
    """The same of a dataset in memory."""
    return DatasetReport(tuple(summarise(data)), tuple(ranges(data)))


def summarise(data: Trajectories) -> list[tuple[str, str]]:
    """What is known of the set as a whole: a name and a text each."""
    about = data.about
    said = [
        ("dataset", about.name),
        ("environment", about.environment or "not recorded"),
        (
            "episodes",
            f"{len(data)} ({int(data.terminations.sum())} terminated, {int(data.truncations.sum())} truncated)",
        ),
        ("steps", str(data.steps)),
        ("steps per episode", _spread(data.lengths)),
        ("observation", _observation(data)),
    ]
    if still := constant_numbers(data.observations):
        said.append(("never change", f"of the observation, {_numbers(still)}: nothing is learnt of what they do"))
    if about.choices is not None:
        counted = f", {about.start} to {about.start + about.choices - 1}" if about.start else ""
        said.append(("action", f"one of {about.choices}{counted}"))
    else:
        low, high = sorted(set(about.low or ())), sorted(set(about.high or ()))
        bounds = f"{low[0]:g} to {high[0]:g}" if len(low) == len(high) == 1 else "bounds differ by number"
        bounds = bounds if low and high else "bounds not recorded"
        said.append(("action", f"{quantity(data.actions.shape[1], 'number')}, {bounds}"))
        said.append(("actions used", f"{data.actions.min():.3g} to {data.actions.max():.3g}"))
    if data.rewards is None:
        return [*said, ("rewards", "none: it can be imitated only")]
    earned = returns(data)
    said.append(("return", _spread(earned)))
    found = support(data, data.observations[data.offsets[:-1]])
    assert found.near is not None
    best = found.near[:, 2]
    said.append(("default target", f"{found.target:.5g}, the mean of the best episodes that hold a tenth of the steps"))
    said.append(
        (
            "best near a start",
            f"{best.min():.5g} to {best.max():.5g}: of the {quantity(min(NEAREST, len(data)), 'episode')} that began "
            "nearest to it, the best return",
        )
    )
    if about.reference is not None:
        low, high = about.reference
        said.append(("reference returns", f"{low:.6g} (random), {high:.6g} (expert)"))
        if low < high:
            score = (100 * (np.asarray(earned, np.float64) - low) / (high - low)).mean()
            said.append(("normalised return", f"{score:.1f} on average"))
    return said


def ranges(data: Trajectories) -> list[tuple[str, ...]]:
    """Range, mean and deviation of every number of observations and actions, and what is notable about it."""
    about = data.about
    still = set(constant_numbers(data.observations))
    tables = [("observation", data.observations, {i: "constant" for i in still})] if about.shape is None else []
    if about.choices is None:
        used: dict[int, str] = {}
        if about.low is not None and about.high is not None:
            halves = (np.array(about.high) - np.array(about.low)) / 2
            share = np.asarray(data.actions, np.float64).std(axis=0) / np.maximum(halves, 1e-12)
            used = {i: f"deviation {part:.1%} of half its range" for i, part in enumerate(share)}
        tables.append(("action", data.actions, used))
    found: list[tuple[str, ...]] = []
    for name, array, remarks in tables:
        size = array.shape[1]
        for i in range(min(size, MOST)):
            column = np.asarray(array[:, i], np.float64)
            numbers = (f"{x:.4g}" for x in (column.min(), column.max(), column.mean(), column.std()))
            found.append((f"{name} {i}", *numbers, remarks.get(i, "")))
        if size > MOST:
            found.append((f"and {size - MOST} more", "", "", "", "", ""))
    return found


def _observation(data: Trajectories) -> str:
    if data.about.shape is None:
        return quantity(data.observations.shape[1], "number")
    return f"image of {' x '.join(map(str, data.about.shape))} bytes"


def _spread(values: Any) -> str:
    least, quarter, middle, three, most = (f"{x:.5g}" for x in np.quantile(values, [0, 0.25, 0.5, 0.75, 1]))
    return f"mean {np.mean(values):.5g}, median {middle}, from {least} to {most}, middle half {quarter} to {three}"


def _numbers(which: list[int], most: int = 10) -> str:
    """`number 3`, `numbers 3 and 5`, `numbers 0, 1, ... and 20 more`."""
    said, more = [str(i) for i in which[:most]], len(which) - most
    if more > 0:
        return f"numbers {', '.join(said)} and {more} more"
    return f"number{'s' if which[1:] else ''} {' and '.join(filter(None, (', '.join(said[:-1]), said[-1])))}"
