"""Behaviour cloning: hyper-parameters, presets and entry.

Source: [DT] the official gym code of Chen et al., arXiv 2106.01345.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from legato.algorithms import schedules
from legato.algorithms.entry import Entry, Preset, Task
from legato.options import (
    Annealing,
    Layers,
    NonNegative,
    PositiveShare,
    Rate,
    ShareBelowOne,
    Size,
    Whole,
    validate,
)


@dataclass(frozen=True)
class BC:
    """Behaviour cloning: an MLP answers an observation with the logged action; of the best episodes only in %BC."""

    fraction: PositiveShare = 1.0
    """share of the steps to learn from, taken from the episodes of highest return; 0.1 is 10%BC [DT]"""
    hidden: Size = 256
    """width of the hidden layers [DT]"""
    layers: Layers = 3
    """hidden layers [DT]"""
    dropout: ShareBelowOne = 0.1
    """share of hidden units left out in training [DT]"""
    batch_size: Size = 64
    """steps per update [DT]"""
    learning_rate: Rate = 1e-4
    """AdamW step size [DT]"""
    warmup: Whole = 0
    """updates over which the step size rises to its value [DT: 10 000 for its transformer]"""
    anneal_over: Annealing = 0
    """updates over which the step size falls towards zero, to a twentieth at least; 0: never, -1: the run"""
    weight_decay: NonNegative = 1e-4
    """AdamW decay of every parameter [DT]"""
    clip: Rate = 0.25
    """largest global norm of a gradient [DT]"""
    action_units: Literal["bounds", "deviation", "auto"] = "bounds"
    """learn actions in units of their bounds, by a tanh [DT]; of their deviation in the data, by a head without one,
    where that is a small part of the bounds; or in whichever of these fits the data"""

    def __post_init__(self) -> None:
        validate(self)


def paper(task: Task) -> Preset:
    """As published."""
    return Preset({}, schedules.PAPER_LOGS)


def cpu(task: Task) -> Preset:
    """For two cores."""
    return Preset({**schedules.FEWER_LOGGED_UPDATES, "batch_size": 256}, schedules.CPU_LOGS)


ENTRIES = (
    Entry(
        name="bc",
        config=BC,
        learns="offline",
        module="legato.algorithms.bc.bc",
        presets={"paper": paper, "cpu": cpu},
        title=lambda config: "BC" if config.fraction == 1 else f"{100 * config.fraction:g}%BC",
        discrete=True,
        images=True,
        offers={"for_data": "bc"},
    ),
)
