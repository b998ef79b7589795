"""Frequency-Averaged Score: how much return is left, on average, when a policy decides ever more rarely.

Source: Patel & Siegelmann 2025 (arXiv 2410.08979), Table 2 notebook of the official code.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from legato.errors import LegatoError

GRID: tuple[int, ...] = (1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)
"""The 16 action sequence lengths (primitive steps per decision) at which returns are measured."""


@dataclass(frozen=True)
class FASReference:
    """The scale of an environment's returns: score = (return + offset) / max_return."""

    max_return: float
    """undiscounted return that scores 1, after the offset is added (R_max)"""
    offset: float = 0.0
    """added to every return (o), so that a useless policy scores about 0"""


# Table 2 notebook of the official code; the returns are those of gym's v2 tasks and Pendulum-v1.
REFERENCES: dict[str, FASReference] = {
    "Pendulum": FASReference(1350.0, 1550.0),
    "LunarLanderContinuous": FASReference(300.0),
    "Hopper": FASReference(3600.0),
    "Walker2d": FASReference(5000.0),
    "Ant": FASReference(6500.0),
    "HalfCheetah": FASReference(17000.0),
    "Humanoid": FASReference(10500.0),
    "InvertedPendulum": FASReference(1000.0),
    "InvertedDoublePendulum": FASReference(9400.0),
    "Reacher": FASReference(60.0, 65.0),
    "Swimmer": FASReference(350.0),
}
# Legato's own tasks, by what the best policy earns on average: in four rooms, at a door and where a cue is recalled all
# that is paid; on a shortest path minus the mean distance, where a miss costs 20; with the point mass what a dynamic
# program comes to (a proportional-derivative controller to 93.7): benchmarks/optimum.py; and with the double
# integrator from what doing nothing costs on average, 1131.2, to what the best policy does, 6.0. A field that is left
# alone scores 0; 1 is about the best that a published figure shows with four jets, and what a controller earns with
# eight and with Burgers' equation: benchmarks/pde.py.
OWN: dict[str, FASReference] = {
    "legato/ShortestPath": FASReference(20 - 56 / 19, 20.0),
    "legato/KeyToDoor": FASReference(1.0),
    "legato/Recall": FASReference(1.0),
    "legato/RecallLong": FASReference(1.0),
    "legato/FourRooms": FASReference(1.0),
    "legato/FourRoomsSparse": FASReference(1.0),
    "legato/PointMass": FASReference(93.9),
    "legato/LQR": FASReference(1125.2, 1131.2),
    "legato/KuramotoSivashinsky": FASReference(388.0, 563.0),
    "legato/KuramotoSivashinsky-8jets": FASReference(546.0, 563.0),
    "legato/Burgers": FASReference(33.0, 42.7),
}


def reference(environment_id: str) -> FASReference | None:
    """The scale of `Name-vN` or `Name`, whatever the version, published or of our own task; None where none is known.

    The module of `module:Name-v0` is ignored: it only says what to import first. A namespace is not:
    `ns/Pendulum-v1` is somebody else's environment whose returns need not be on this scale, so the answer is
    None.
    """
    name = family(environment_id)
    return REFERENCES.get(name) or OWN.get(name)


def family(environment_id: str) -> str:
    """The name of an environment without its version and without the module to import first."""
    return re.sub(r"-v\d+$", "", environment_id.rpartition(":")[2])


def weights(grid: Sequence[int] = GRID) -> NDArray[np.float64]:
    """Trapezoid weights [len(grid)] over the length axis: `weights(x) @ y` is the integral of y over x.

    For GRID they are 0.5, 1.5, 2 (13 times), 1 and sum to 29. Raises LegatoError unless the grid holds two or
    more strictly increasing positive lengths.
    """
    lengths = np.asarray(grid, np.float64)
    if lengths.ndim != 1 or lengths.size < 2 or lengths[0] <= 0 or not np.all(np.diff(lengths) > 0):
        raise LegatoError(f"grid {grid} must hold two or more strictly increasing positive action sequence lengths")
    gaps = np.diff(lengths)
    return 0.5 * (np.append(gaps, 0.0) + np.insert(gaps, 0, 0.0))


def fas(returns: ArrayLike, max_return: float, offset: float = 0.0, grid: Sequence[int] = GRID) -> NDArray[np.float64]:
    """Frequency-Averaged Score [...] of mean undiscounted episode returns [..., len(grid)].

        FAS = trapezoid(R(ASL) + o, x = ASL) / (max(ASL) R_max)
            = [0.5 R(1) + 1.5 R(2) + 2 (R(4) + ... + R(28)) + R(30) + 29 o] / (30 R_max)      on GRID

    The axis is the action sequence length (ASL) itself, so lengths of 4 and more make up 93 % of the score.
    The integral runs over 29 lengths and is divided by 30: a return of R_max - o at every length scores 29/30
    = 0.9667, the practical ceiling; the same at ASL 1 alone and 0 elsewhere scores 0.5/30 = 0.0167. Nothing
    is clipped: worse than -o is negative, better than R_max - o counts in full. NaN returns give a NaN score.

    The source measures each (seed, policy) in 10 greedy episodes per length and reports mean and population
    standard deviation over 5 seeds. Raises LegatoError when the last axis is not the grid's or max_return is
    not positive. Source: Patel & Siegelmann 2025 (arXiv 2410.08979), Table 2 notebook of the official code.
    """
    weight = weights(grid)
    values = np.asarray(returns, np.float64)
    if values.ndim == 0 or values.shape[-1] != weight.size:
        raise LegatoError(
            f"returns have shape {values.shape}; the last axis must hold one return for each of the "
            f"{weight.size} action sequence lengths {grid[0]} to {grid[-1]}"
        )
    if not max_return > 0:
        raise LegatoError(f"max_return is {max_return}; it must be positive")
    return (values + offset) @ weight / (grid[-1] * max_return)
