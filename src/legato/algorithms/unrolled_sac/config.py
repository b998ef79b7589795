"""Unrolled SAC: hyper-parameters, presets and entry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from legato.algorithms import schedules
from legato.algorithms.entry import Entry, Preset, Task
from legato.errors import LegatoError
from legato.options import Annealing, AtLeast, Count, PositiveShare, Rate, Share, Size, Steps, types, validate
from legato.planning.options import Shooting


@dataclass(frozen=True)
class UnrolledSAC:
    """SAC whose plans are its own decisions in states that an ensemble of models predicts."""

    horizon: Steps = 16
    """primitive actions that a plan has at most while collecting, J"""
    execute: Annotated[int, AtLeast(-1)] = -1
    """primitive actions of a plan that are executed while collecting; 0: all J, -1: a random number of them"""
    hidden: Size = 256
    """width of the two hidden layers of actor and critics"""
    members: Annotated[int, AtLeast(1, most=100)] = 5
    """models of the environment, whose mean prediction plans are made with"""
    model_hidden: Annotated[tuple[int, int], AtLeast(1, most=10**6)] = (128, 128)
    """widths of a model's hidden layers"""
    model_steps: Steps = 4
    """steps ahead that a model learns to predict, from its own predictions"""
    model_decay: PositiveShare = 1.0
    """weight of each further of these steps"""
    batch_size: Size = 256
    """transitions per update of actor and critics, and stretches that the models share"""
    learning_rate: Rate = 3e-4
    """Adam step size of actor, critics, models and temperature"""
    anneal_over: Annealing = 0
    """updates over which the step size falls towards zero, to a twentieth at least; 0: never, -1: the run"""
    gamma: Share = 0.99
    """discount per primitive step"""
    tau: PositiveShare = 0.005
    """Polyak rate of target critics and of the models that plans are made with, every update"""
    n_step: Steps = 1
    """rewards that the critics' target adds up before it bootstraps"""
    critic_norm: bool = True
    """layer normalisation in the critics' hidden layers"""
    policy: Literal["planned", "written"] = "planned"
    """what is deployed: the actor unrolled in the models, or a recurrent network that has learnt to write such plans"""
    write_length: Annotated[int, AtLeast(1, most=200)] = 30
    """actions of the plans that it learns to write"""
    write_updates: Count = 8_000
    """updates that it learns from plans for the replay's states when the run ends; a quarter as many at each quarter"""
    fit_updates: Annotated[int, AtLeast(0)] = 6_000
    """updates that the models are fitted for when the run ends, of 64 stretches each"""
    fit_steps: Annotated[int, AtLeast(1, most=200)] = 12
    """steps ahead that they learn to predict then"""

    def __post_init__(self) -> None:
        validate(self)
        if self.execute > self.horizon:
            raise LegatoError(f"execute must be at most the horizon, {self.horizon}; {self.execute} was given")
        if self.batch_size < self.members:
            raise LegatoError(f"batch_size must be at least members, {self.members}; {self.batch_size} was given")


def paper(task: Task) -> Preset:
    """Sizes and lengths of SRL's paper."""
    return Preset({}, schedules.paper(task))


def cpu(task: Task) -> Preset:
    """For two cores."""
    return Preset(schedules.FEWER_UPDATES, schedules.cpu(task))


PLANNERS = ("unrolled", "mppi", "cem")

ENTRIES = (
    Entry(
        name="usac",
        config=UnrolledSAC,
        learns="online",
        module="legato.algorithms.unrolled_sac.unrolled_sac",
        presets={"paper": paper, "cpu": cpu},
        title=lambda config: "USAC",
        details=lambda config: ["written"] if config.policy == "written" else [],
        play={"planner": str, **types(Shooting)},
        offers={
            **{"collect_interval": "unrolled_sac", "explorer": "unrolled_sac"},
            **{"refresh_due": "stages", "refresh": "stages", "finish": "stages", "compose": "planner"},
        },
    ),
)
