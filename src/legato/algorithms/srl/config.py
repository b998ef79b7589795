"""SRL: hyper-parameters, presets and entry.

Source: [SRL] the official code of Patel & Siegelmann, arXiv 2410.08979.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from legato.algorithms import schedules
from legato.algorithms.entry import Entry, Preset, Task
from legato.errors import LegatoError
from legato.options import Annealing, AtLeast, Count, PositiveShare, Rate, Share, Size, Steps, types, validate
from legato.planning.options import Shooting


@dataclass(frozen=True)
class SRL:
    """Sequence Reinforcement Learning: an actor that emits `horizon` actions, taught through a learned model."""

    horizon: Steps = 4
    """primitive actions per decision while training, J [SRL]"""
    cell: Literal["gru", "rnn"] = "gru"
    """recurrent cell of the actor [SRL]"""
    hidden: Size = 256
    """width of the actor and of the critics' two hidden layers [SRL]"""
    model_hidden: Annotated[tuple[int, int], AtLeast(1, most=10**6)] = (400, 300)
    """widths of the dynamics model's hidden layers [SRL]"""
    batch_size: Size = 256
    """transitions per minibatch; an update draws two [SRL]"""
    learning_rate: Rate = 3e-4
    """Adam step size of actor, critics, model and temperature [SRL]"""
    anneal_over: Annealing = 0
    """updates over which the step size falls towards zero, to a twentieth at least; 0: never [SRL], -1: the run"""
    gamma: Share = 0.99
    """discount per primitive step [SRL]"""
    tau: PositiveShare = 0.005
    """Polyak rate of target critics and target model, every update [SRL]"""
    actor_every: Count = 1
    """critic and model updates per update of actor and temperature [SRL]"""
    teaching: Literal["recall", "through_time"] = "recall"
    """the actor learns from every step's value, no gradient through states [SRL], or the last one's, through time"""
    execute: Annotated[int, AtLeast(-1)] = 0
    """primitive actions of a plan that are executed while collecting, before the next is made; 0: all J [SRL], -1: a
    random number of them"""
    model_target: Literal["observation", "difference"] = "observation"
    """what the model predicts: the next observation [SRL], or its change, in units of how much it usually changes; a
    latent state, which has no units, it predicts itself"""
    model_decay: PositiveShare = 0.5
    """with a latent state, weight of each further of the five steps ahead that the model learns to predict"""
    critic: Literal["one_step", "time_aware"] = "one_step"
    """what the critics know: state and action [SRL]; or the action's place in the plan too, and the model's state there
    [SRL's variant]"""
    predict_terminations: bool = False
    """what is taught of predicted states counts as much as they are likely to be reached before the episode ends"""
    latent: Annotated[int, AtLeast(0, most=10**6)] = 0
    """size of a learnt state that actor, critics and model work in, found by temporal consistency; 0: the observation
    itself [SRL]; 50 in SRL's variant"""
    n_step: Steps = 1
    """rewards that the critics' target adds up before it bootstraps [SRL: 1]"""
    action_units: Literal["bounds", "environment"] = field(default="bounds", metadata={"before": "environment"})
    """in which actions are learnt: those of their bounds, [-1, 1], or the environment's, as published [SRL]"""

    RETIRED: ClassVar[dict[str, Any]] = {"vary": False, "grow_over": 0, "model_steps": 0}

    def __post_init__(self) -> None:
        validate(self)
        if self.execute > self.horizon:
            raise LegatoError(f"execute must be at most the horizon, {self.horizon}; {self.execute} was given")
        if self.n_step > 1 and self.critic != "one_step":
            raise LegatoError(f"n_step {self.n_step} needs critics that know one step; critic {self.critic} was given")


def paper(task: Task) -> Preset:
    """As published."""
    return Preset({"action_units": "environment"}, schedules.paper(task))


def cpu(task: Task) -> Preset:
    """For two cores, with what lets long plans be learnt where an episode ends when it goes wrong."""
    options = {"model_hidden": (128, 128), "model_target": "difference", "execute": -1, "predict_terminations": True}
    return Preset({**schedules.FEWER_UPDATES, **options}, schedules.cpu(task))


PLANNERS = ("unrolled", "mppi", "cem")

ENTRIES = (
    Entry(
        name="srl",
        config=SRL,
        learns="online",
        module="legato.algorithms.srl.srl",
        presets={"paper": paper, "cpu": cpu},
        title=lambda config: f"SRL-{config.horizon}",
        play={"planner": str, **types(Shooting)},
        offers={"check": "srl", "collect_interval": "srl", "explorer": "srl", "compose": "planner"},
    ),
)
