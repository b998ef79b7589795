"""What a policy needs to know of an environment: its spec."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from legato.data.spec import UNBOUNDED, Spec
from legato.errors import LegatoError


def describe(
    environment: Any,
    name: str,
    user: str = "",
    *,
    discrete: bool = False,
    images: bool = False,
    instead: str = "",
) -> Spec:
    """The environment's spec: a flat observation and a bounded continuous action, or a choice where that is supported.

    Observations of bytes in two or more dimensions are images where these are supported, and as many numbers elsewhere.
    `user` is the algorithm that asks, and `instead` says who learns choices; both only word the error.
    Raises `LegatoError` for dict and other spaces, for actions without finite bounds, and for choices unless
    `discrete`.
    """

    def refuse(what: str) -> LegatoError:
        who = f" by {user}" if user else ""
        return LegatoError(f"{what} of '{name}' are not supported{who}; no algorithm supports it yet")

    observation, action = environment.observation_space, environment.action_space
    if not isinstance(observation, spaces.Box):
        what = f"{type(observation).__name__.lower()} observations of '{name}' are not supported"
        raise LegatoError(f"{what}; wrap it in gymnasium.wrappers.FlattenObservation, in a function that makes it")
    size = int(np.prod(observation.shape))
    shape = observation.shape if images and is_image(observation) else None
    if discrete and isinstance(action, spaces.Discrete):
        return Spec.discrete(size, int(action.n)).with_images(shape)
    if isinstance(action, spaces.Discrete) and instead:
        raise LegatoError(f"discrete actions of '{name}' are not supported by {user}; {instead}")
    if not isinstance(action, spaces.Box):
        raise refuse(f"{type(action).__name__.lower()} actions")
    if len(action.shape) != 1:
        raise refuse(f"actions of shape {action.shape}")
    if not np.issubdtype(action.dtype, np.floating):
        raise refuse(f"actions of type {action.dtype}")
    low, high = action.low.astype(float), action.high.astype(float)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        bad = int(np.flatnonzero(~(np.isfinite(low) & np.isfinite(high)))[0])
        raise LegatoError(
            f"action[{bad}] of '{name}' has no finite bounds ({low[bad]} to {high[bad]}); "
            "give its Box finite limits, or wrap it in gymnasium.wrappers.TransformAction with a finite Box"
        )
    if size < 1 or not len(low):
        raise refuse(f"{'observations' if size < 1 else 'actions'} of no numbers")
    if (far := np.maximum(np.abs(low), np.abs(high)) > UNBOUNDED).any():
        bad = int(far.argmax())
        raise LegatoError(
            f"action[{bad}] of '{name}' is bounded by {low[bad]:g} and {high[bad]:g}, beyond {UNBOUNDED:g}, which "
            "is no bound: give its Box the limits that are meant"
        )
    return Spec(size, tuple(low.tolist()), tuple(high.tolist())).with_images(shape)


def is_image(space: spaces.Box) -> bool:
    """Does a space hold images: bytes from 0 to 255, in two dimensions or more?"""
    return space.dtype == np.uint8 and len(space.shape) > 1 and bool((space.high == 255).all())
