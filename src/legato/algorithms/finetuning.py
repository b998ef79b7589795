"""What fine-tunings share."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from legato.errors import LegatoError


class Phase(NamedTuple):
    """What a turn does, from some step on."""

    updates: int
    joint: bool
    """is the actor updated, or are the critics alone?"""
    noise: float = 0.0
    """deviation of the noise on actions, in units of their bounds, or the share of their own"""
    target_variation: float = 0.0
    """an episode is asked for up to this share more or less than the present target"""


def check_n_step(n_step: int, limit: int | None) -> None:
    """Raises `LegatoError` for an n-step return that is longer than an episode of `limit` steps."""
    if limit is not None and n_step > limit:
        raise LegatoError(f"n_step {n_step} is longer than an episode of the environment ({limit} steps)")


def target_above(
    target_increment: float,
    first: Float[np.ndarray, " seeds"],
    best: Float[np.ndarray, " seeds"],
    target_scale: Float[np.ndarray, " seeds"],
) -> Float[np.ndarray, " seeds"]:
    """The return to ask for: by a share `target_increment` of trust above the best evaluation so far, and never below
    the first.

    Policies that read a target return earn more when it is higher, up to a point beyond which they fail.
    """
    return np.maximum(first, best + target_increment * target_scale * np.abs(best))
