"""TD3: hyper-parameters, presets and entry.

Source: [TD3] Fujimoto et al., arXiv 1802.09477.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from legato.algorithms import schedules
from legato.algorithms.entry import Entry, Preset, Task
from legato.options import Annealing, Count, NonNegative, PositiveShare, Rate, Share, Size, validate


@dataclass(frozen=True)
class TD3:
    """Twin delayed deep deterministic policy gradients: one deterministic action at every step."""

    noise: NonNegative = 0.1
    """deviation of the noise on actions while collecting, in units of their bounds [TD3]"""
    smoothing: NonNegative = 0.2
    """deviation of the noise on the actions of targets, in units of their bounds [TD3]"""
    smoothing_clip: NonNegative = 0.5
    """its largest size [TD3]"""
    actor_every: Count = 2
    """updates of the critics per update of actor and targets [TD3]"""
    hidden: Size = 256
    """width of the two hidden layers of actor and critics [TD3: 400 and 300, later 256]"""
    batch_size: Size = 256
    """transitions per update [TD3: 100, later 256]"""
    learning_rate: Rate = 3e-4
    """Adam step size of actor and critics [TD3: 1e-3, later 3e-4]"""
    anneal_over: Annealing = 0
    """updates over which the step size falls towards zero, to a twentieth at least; 0: never [TD3], -1: the run"""
    gamma: Share = 0.99
    """discount per primitive step [TD3]"""
    tau: PositiveShare = 0.005
    """Polyak rate of the targets, with every update of the actor [TD3]"""
    action_units: Literal["bounds", "environment"] = field(default="bounds", metadata={"before": "environment"})
    """in which critics read actions: those of their bounds, [-1, 1], or the environment's, as published [TD3]"""

    def __post_init__(self) -> None:
        validate(self)


def paper(task: Task) -> Preset:
    """As published."""
    return Preset({"action_units": "environment"}, schedules.paper(task))


def cpu(task: Task) -> Preset:
    """For two cores."""
    return Preset(schedules.FEWER_UPDATES, schedules.cpu(task))


ENTRIES = (
    Entry(
        name="td3",
        config=TD3,
        learns="online",
        module="legato.algorithms.td3.td3",
        presets={"paper": paper, "cpu": cpu},
        offers={"check": "td3"},
    ),
)
