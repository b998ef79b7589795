"""Implicit Q-learning: hyper-parameters, presets and entry.

Source: [IQL] the official code of Kostrikov et al., arXiv 2110.06169.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from legato.algorithms.entry import Entry, Preset, Task
from legato.options import (
    Annealing,
    Interval,
    Layers,
    NonNegative,
    Positive,
    PositiveShare,
    Rate,
    Share,
    ShareBelowOne,
    Size,
    validate,
)


@dataclass(frozen=True)
class IQL:
    """Implicit Q-learning: the value of the best actions in the data, and a policy that imitates these."""

    expectile: Annotated[float, Interval("(0, 1)")] = 0.7
    """which of the data's actions V is of: 0.5 the average one, towards 1 the best [IQL: 0.9 in AntMaze]"""
    beta: NonNegative = 3.0
    """how sharply better actions are preferred, per unit of Q - V; 0 imitates all alike [IQL: 10 in AntMaze]"""
    gamma: Share = 0.99
    """discount per primitive step [IQL]"""
    tau: PositiveShare = 0.005
    """Polyak rate of the target critics, every update [IQL]"""
    reward_scale: Annotated[float, Positive((0, "the data's own"))] = 1.0
    """rewards are divided by this [IQL]; 0: by a thousandth of the range of the data's returns [IQL: in locomotion]"""
    reward_shift: float = 0.0
    """is added to every reward then; -1 where only arriving is paid, with 1 [IQL: in AntMaze]"""
    hidden: Size = 256
    """width of the hidden layers of actor, critics and V [IQL]"""
    layers: Layers = 2
    """hidden layers of each [IQL]"""
    dropout: ShareBelowOne = 0.0
    """share of the actor's hidden units left out in training [IQL: 0.1 in Kitchen and Adroit]"""
    batch_size: Size = 256
    """transitions per update [IQL]"""
    learning_rate: Rate = 3e-4
    """Adam step size of actor, critics and V [IQL]"""
    anneal_over: Annealing = -1
    """updates over which the actor's step size falls along a cosine to zero; 0: never, -1: the run [IQL]"""
    initialisation: Literal["xavier", "orthogonal"] = "xavier"
    """first weights of all layers: Xavier uniform, or orthogonal with a gain of the root of 2 [IQL]"""
    anneal_critics: bool = False
    """let the step size of critics and V fall as well, towards zero, to a twentieth at least [IQL: off]"""

    def __post_init__(self) -> None:
        validate(self)


# How the official code learns, by words of the dataset's name of which one is needed, where it differs from its base.
# What calls itself sparse is taken to pay 1 for arriving, as AntMaze does.
BY_DATASET: dict[tuple[str, ...], dict[str, Any]] = {
    ("hopper", "halfcheetah", "walker2d"): {"reward_scale": 0.0},
    ("antmaze", "sparse"): {"expectile": 0.9, "beta": 10.0, "reward_shift": -1.0},
    ("kitchen", "pen", "door", "hammer", "relocate"): {"beta": 0.5, "dropout": 0.1},
}


def _by_dataset(task: Task) -> dict[str, Any]:
    return next((options for words, options in BY_DATASET.items() if task.words & set(words)), {})


def paper(task: Task) -> Preset:
    """As published."""
    options = _by_dataset(task)
    every, played = (100_000, 100) if "reward_shift" in options else (5_000, 10)
    settings = {"updates": 1_000_000, "eval_every": every, "eval_episodes": played}
    return Preset({**options, "initialisation": "orthogonal"}, settings)


def cpu(task: Task) -> Preset:
    """For two cores: fewer updates, so longer steps, which shrink towards the end.

    A third layer, so that V can fall off at a wall.
    """
    options = {"hidden": 128, "layers": 3, "batch_size": 128, "learning_rate": 1e-3, "tau": 0.01, "dropout": 0.0}
    options["anneal_critics"] = True
    settings = {"updates": 20_000, "eval_every": 5_000, "checkpoint_every": 5_000}
    return Preset({**_by_dataset(task), **options}, settings)


ENTRIES = (
    Entry(
        name="iql",
        config=IQL,
        learns="offline",
        module="legato.algorithms.iql.iql",
        presets={"paper": paper, "cpu": cpu},
        discrete=True,
        offers={"prepare": "iql", "q_function": "iql"},
    ),
)
