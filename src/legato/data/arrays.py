"""Flat arrays under our names, as files hold them, into trajectories and back."""

from __future__ import annotations

import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from legato.data import storage
from legato.data.spec import UNBOUNDED
from legato.data.trajectories import About, Trajectories, trajectories
from legato.errors import LegatoError, LegatoWarning

CHOICES = 1 << 16  # discrete actions at most
NUMBERS = 100_000  # of an action at most
LARGEST = float(np.finfo(np.float32).max)
FLAGS = ("terminations", "terminals", "truncations", "timeouts")
NAMES = ("observations", "actions", "rewards", *FLAGS, "offsets", "next_observations", "ends")
NAMES += ("environment", "reference", "low", "high", "choices", "start")

MANY = 50  # steps: shorter episodes of one length are common


def from_arrays(
    path: Path,
    arrays: dict[str, np.ndarray],
    clip_actions: bool = False,
    environment: str | None = None,
) -> Trajectories:
    """Trajectories of arrays under our names, out of a file or folder (see `load`)."""

    def flags(*names: str) -> np.ndarray | None:
        return next((arrays[name] for name in names if name in arrays), None)

    steps = np.shape(arrays["observations"])[:1]
    offsets, terminations, truncations = (
        arrays.get("offsets"),
        flags("terminations", "terminals"),
        flags("truncations", "timeouts"),
    )
    if offsets is None and terminations is None and truncations is None:
        raise LegatoError(f"'{path}' does not say where episodes end: it has no terminals, timeouts or offsets")
    none = np.zeros(steps, bool)
    try:
        about = About(path.stem, **about_from(arrays))
    except (TypeError, ValueError, OverflowError) as problem:
        raise LegatoError(
            f"'{path}': environment, reference, low, high, choices or start is malformed: {storage.line(problem)}"
        ) from None
    actions = arrays["actions"]
    if actions.dtype.kind in "iu" and environment is None and about.choices is None and about.low is None:
        raise LegatoError(
            f"'{path}' has whole numbers ({actions.dtype}) for actions: add an array 'choices', how many discrete ones "
            "there are, or 'low' and 'high' if they are continuous, or name the environment with `env`"
        )
    data = trajectories(
        arrays["observations"],
        actions,
        arrays.get("rewards"),
        none if terminations is None else terminations,
        none if truncations is None else truncations,
        offsets,
        arrays.get("ends"),
        about,
        next_observations=arrays.get("next_observations"),
        clip_actions=clip_actions,
        start=about.start,
    )
    if "ends" not in arrays:
        data = _without_next_starts(data)
    if about.environment is not None:
        import gymnasium

        warn_of_length(data, about.environment, gymnasium.registry.get(about.environment))
    elif environment is None:
        _warn_of_equal_ends(data)
    return check_clipped(data, clip_actions, environment)


def _warn_of_equal_ends(data: Trajectories) -> None:
    """Warn where every episode terminates after the same many steps: that looks like a time limit."""
    over, length = data.terminations[data.offsets[1:] - 1], int(data.lengths[0])
    if len(data) > 1 and length >= MANY and over.all() and (data.lengths == length).all():
        warnings.warn(
            f"{data.about.name}: all {len(data)} episodes terminate after {length} steps: if a time limit cut them, "
            "they are truncated: import it with `ends=truncated`",
            LegatoWarning,
            stacklevel=3,
        )


def check_clipped(data: Trajectories, clip_actions: bool, environment: str | None) -> Trajectories:
    """The data, whose actions were to be clipped; refused where there is nothing to clip them to."""
    if clip_actions and environment is None and data.about.choices is None and data.about.low is None:
        raise LegatoError(
            f"{data.about.name} does not say how its actions are bounded, so that there is nothing to clip them to: "
            "add arrays 'low' and 'high', or import it with `low` and `high`"
        )
    return data


def _without_next_starts(data: Trajectories) -> Trajectories:
    """The same without `ends`, where these are what the next episode began with: their recorder reset before it looked.

    Only truncated episodes are asked, and only where the next one begins elsewhere than they did.
    """
    begun, cut = data.observations[data.offsets[:-1]], data.truncations[data.offsets[1:-1] - 1]
    cut &= (begun[1:] != begun[:-1]).any(axis=1)
    if (
        data.final_observations is None
        or not cut.any()
        or not (data.final_observations[:-1][cut] == begun[1:][cut]).all()
    ):
        return data
    warnings.warn(
        f"{data.about.name}: after truncated episodes, next_observations hold the next episode's first observation: "
        "they count as unknown there",
        LegatoWarning,
        stacklevel=2,
    )
    return replace(data, final_observations=None)


def warn_of_length(data: Trajectories, name: str, spec: Any) -> None:
    """Warn where an episode has more steps than the environment `name` allows by its `spec`, or terminates there."""
    limit, longest = getattr(spec, "max_episode_steps", None), int(data.lengths.max())
    over = data.terminations[data.offsets[1:] - 1]
    cut = int((over & (data.lengths == limit)).sum())
    if cut > 1 and cut == over.sum():  # none of them terminates earlier
        warnings.warn(
            f"{data.about.name}: {cut} of {len(data)} episodes terminate after {limit} steps, the time limit of "
            f"'{name}': if it cut them, they are truncated: import it with `ends=truncated`",
            LegatoWarning,
            stacklevel=2,
        )
    if limit is not None and longest > limit:
        warnings.warn(
            f"{data.about.name} has an episode of {longest} steps, and '{name}' ends them after {limit}: are all ends "
            "marked?",
            LegatoWarning,
            stacklevel=2,
        )


def about_from(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """What `arrays` say beside the steps. Raises `ValueError`, `TypeError` or `OverflowError` for what is no such."""
    known: dict[str, Any] = {}
    if "environment" in arrays:
        known["environment"] = text_from(arrays["environment"])
    for name in ("reference", "low", "high"):
        if name in arrays:
            known[name] = numbers_from(arrays[name], name)
    if len(known.get("reference", (0, 0))) != 2:
        raise ValueError("reference holds two returns")
    if len(known.get("low", ())) != len(known.get("high", ())):
        raise ValueError("there are as many upper bounds as lower ones")
    if any(a > b for a, b in zip(known.get("low", ()), known.get("high", ()), strict=True)):
        raise ValueError("a lower bound lies above its upper one")
    if any(abs(bound) > UNBOUNDED for bound in (*known.get("low", ()), *known.get("high", ()))):
        raise ValueError(f"a bound beyond {UNBOUNDED:g} is none")
    for name, least, most in (("choices", 1, CHOICES), ("start", -(2**31) + CHOICES, 2**31 - 1 - CHOICES)):
        if name in arrays:
            number = numbers_from(arrays[name], name)
            if len(number) != 1 or not least <= number[0] <= most or number[0] != int(number[0]):
                raise ValueError(f"{name} is a whole number from {least} to {most}")
            known[name] = int(number[0])
    return known


def text_from(array: np.ndarray) -> str:
    """A name in printable characters."""
    value = array.item() if array.size == 1 else None
    text = value.decode() if isinstance(value, bytes) else value
    if not isinstance(text, str) or not text.isprintable() or len(text) > 200:
        raise ValueError("environment is an id of printable characters")
    return text


def numbers_from(array: np.ndarray, name: str) -> tuple[float, ...]:
    """Finite numbers, one or a few."""
    if array.dtype.kind not in "biuf" or array.size > NUMBERS:
        raise ValueError(f"{name} holds a few numbers, not {array.size} of type {array.dtype}")
    numbers = tuple(float(x) for x in np.ravel(array))
    if not all(abs(x) <= LARGEST for x in numbers):
        raise ValueError(f"{name} holds numbers that float32 has no place for")
    return numbers


def to_arrays(data: Trajectories) -> dict[str, np.ndarray]:
    """The arrays that a file holds of these episodes, by name; the inverse of `from_arrays`."""
    names = ("observations", "actions", "rewards", "terminations", "truncations", "offsets")
    about = {name: value for name, value in asdict(data.about).items() if name != "name"}
    found = {**{name: getattr(data, name) for name in names}, "ends": data.final_observations, **about}
    if (shape := found.pop("shape")) is not None:  # images are written as images
        for name in ("observations", "ends"):
            found[name] = None if found[name] is None else np.reshape(found[name], (-1, *shape))
    if data.about.start:
        found["actions"] = data.actions + data.about.start
    else:
        del found["start"]
    return {name: np.asarray(value) for name, value in found.items() if value is not None}
