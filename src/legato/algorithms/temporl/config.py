"""TempoRL: hyper-parameters, presets and entry.

Sources: [TempoRL] Biedenkapp et al., arXiv 2106.05262, and its official code; [TD3] Fujimoto et al., arXiv 1802.09477.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from legato.algorithms import schedules
from legato.algorithms.entry import Entry, Preset, Task
from legato.options import Annealing, Count, NonNegative, PositiveShare, Rate, Share, Size, Steps, validate


@dataclass(frozen=True)
class TempoRL:
    """TempoRL: an action of TD3 (of choices, of double DQN), and for how many steps it is held."""

    max_skip: Steps = 8
    """longest skip, primitive steps for which an action may be held, J [TempoRL: 2 to 20]"""
    skip_epsilon: Share = 0.1
    """share of skips whose length is drawn at random while collecting [TempoRL]"""
    epsilon: Share = 0.1
    """where actions are choices: share of actions that are drawn at random while collecting [TempoRL]"""
    noise: NonNegative = 0.1
    """deviation of the noise on actions while collecting, in units of their bounds [TempoRL, TD3]"""
    smoothing: NonNegative = 0.2
    """deviation of the noise on the actions of targets, in units of their bounds [TD3]"""
    smoothing_clip: NonNegative = 0.5
    """its largest size [TD3]"""
    actor_every: Count = 2
    """updates of the critics per update of actor and targets [TD3]"""
    hidden: Size = 256
    """width of the two hidden layers of all networks [TD3; TempoRL: 400 and 300, of choices 50]"""
    batch_size: Size = 256
    """transitions, and as many skips, per update [TempoRL; of choices 64]"""
    learning_rate: Rate = 3e-4
    """Adam step size of all networks [TD3; TempoRL: 1e-3]"""
    anneal_over: Annealing = 0
    """updates over which the step size falls towards zero, to a twentieth at least; 0: never [TempoRL], -1: the run"""
    gamma: Share = 0.99
    """discount per primitive step [TempoRL, TD3]"""
    tau: PositiveShare = 0.005
    """Polyak rate of the targets [TempoRL; of choices 0.01, TD3]"""
    action_units: Literal["bounds", "environment"] = "bounds"
    """in which critics and skips read actions: those of their bounds, [-1, 1], or the environment's, as published"""

    def __post_init__(self) -> None:
        validate(self)


def paper(task: Task) -> Preset:
    """Sizes as published, with TD3 in the place of DDPG."""
    return Preset({"action_units": "environment", "learning_rate": 1e-3}, schedules.paper(task))


def cpu(task: Task) -> Preset:
    """For two cores."""
    return Preset(schedules.FEWER_UPDATES, schedules.cpu(task))


ENTRIES = (
    Entry(
        name="temporl",
        config=TempoRL,
        learns="online",
        module="legato.algorithms.temporl.temporl",
        presets={"paper": paper, "cpu": cpu},
        discrete=True,
        title=lambda config: f"TempoRL-{config.max_skip}",
        offers={"check": "temporl", "policy_interval": "temporl", "explorer": "temporl"},
    ),
)
