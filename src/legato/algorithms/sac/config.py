"""SAC: hyper-parameters, presets and entry.

Sources: [SAC] Haarnoja et al., arXiv 1812.05905; [SRL] the official code of Patel & Siegelmann, arXiv 2410.08979;
[Christodoulou] arXiv 1910.07207.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from legato.algorithms import schedules
from legato.algorithms.entry import Entry, Preset, Task
from legato.options import Annealing, PositiveShare, Rate, Share, Size, Steps, validate


@dataclass(frozen=True)
class SAC:
    """Soft actor-critic, with each action held for `action_repeat` primitive steps while collecting (SAC-J)."""

    action_repeat: Steps = 1
    """primitive steps for which an action is held, J of SAC-J [SRL]"""
    updates: Literal["decision", "step"] = "step"
    """what an update and a transition stand for: a held decision (the paper's SAC-J), or every primitive step"""
    hidden: Size = 256
    """width of the two hidden layers of actor and critics [SAC, SRL]"""
    batch_size: Size = 256
    """transitions per update [SAC, SRL]"""
    learning_rate: Rate = 3e-4
    """Adam step size of actor, critics and temperature [SAC, SRL]"""
    anneal_over: Annealing = 0
    """updates over which the step size falls towards zero, to a twentieth at least; 0: never [SAC, SRL], -1: the run"""
    gamma: Share = 0.99
    """discount per transition [SAC, SRL]"""
    tau: PositiveShare = 0.005
    """Polyak rate of the target critics, every update [SAC, SRL]"""
    action_units: Literal["bounds", "environment"] = field(default="bounds", metadata={"before": "environment"})
    """in which actions are learnt: those of their bounds, [-1, 1], or the environment's, as published [SAC, SRL]"""

    entropy_share: PositiveShare = 0.98
    """where actions are choices: the entropy to keep, as a share of that of uniform draws [Christodoulou]"""

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
        name="sac",
        config=SAC,
        learns="online",
        module="legato.algorithms.sac.sac",
        presets={"paper": paper, "cpu": cpu},
        discrete=True,
        images=True,
        offers={"check": "sac"},
        title=lambda config: "SAC" if config.action_repeat == 1 else f"SAC-{config.action_repeat}",
    ),
)
