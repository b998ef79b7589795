"""What the ways to go on learning by acting share."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from legato.algorithms.configs import DS4AC, DS4RW, OnlineDT


class Phase(NamedTuple):
    """What is done from some step on."""

    updates: int
    joint: bool
    """is what acts updated, or are the critics alone?"""
    noise: float = 0.0
    """deviation of the noise on actions, in units of their bounds, or the share of their own"""


def above(
    config: DS4AC | DS4RW | OnlineDT,
    first: Float[np.ndarray, " seeds"],
    best: Float[np.ndarray, " seeds"],
    trust: Float[np.ndarray, " seeds"],
) -> Float[np.ndarray, " seeds"]:
    """The return to ask for: by a share `ahead` of trust above the best evaluation so far, and never below the first.

    Policies that read a return give more when they are asked for more, up to a point, beyond which they fall.
    """
    return np.maximum(first, best + config.ahead * trust * np.abs(best))
