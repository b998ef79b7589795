"""The hyper-parameters of every algorithm, with unit and source.

They stand apart from the algorithms because this file does not import JAX: `--help` and misspelt options are answered
at once. Sources: [SRL] the official code of Patel & Siegelmann, arXiv 2410.08979; [SAC] Haarnoja et al.,
arXiv 1812.05905.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from legato.errors import LegatoError


def _check_common(config: SAC | SRL) -> None:
    for name in ("hidden", "batch_size"):
        if getattr(config, name) < 1:
            raise LegatoError(f"{name} must be at least 1; {getattr(config, name)} was given")
    if not 0 <= config.gamma <= 1:
        raise LegatoError(f"gamma must lie in [0, 1]; {config.gamma} was given")
    if not 0 < config.tau <= 1:
        raise LegatoError(f"tau must lie in (0, 1]; {config.tau} was given")
    if config.learning_rate <= 0:
        raise LegatoError(f"learning_rate must be positive; {config.learning_rate} was given")
    if config.anneal_over < -1:
        raise LegatoError(f"anneal_over must be at least -1; {config.anneal_over} was given")


@dataclass(frozen=True)
class SAC:
    """Soft actor-critic, with each action held for `action_repeat` primitive steps while collecting (SAC-J)."""

    action_repeat: int = 1
    """primitive steps for which an action is held, J of SAC-J [SRL]"""
    updates: Literal["decision", "step"] = "step"
    """what an update and a transition stand for: a held decision (the paper's SAC-J), or every primitive step"""
    hidden: int = 256
    """width of the two hidden layers of actor and critics [SAC, SRL]"""
    batch_size: int = 256
    """transitions per update [SAC, SRL]"""
    learning_rate: float = 3e-4
    """Adam step size of actor, critics and temperature [SAC, SRL]"""
    anneal_over: int = 0
    """updates over which the step size falls towards zero, to a twentieth at least; 0: never [SAC, SRL], -1: the run"""
    gamma: float = 0.99
    """discount per transition [SAC, SRL]"""
    tau: float = 0.005
    """Polyak rate of the target critics, every update [SAC, SRL]"""

    def __post_init__(self) -> None:
        _check_common(self)
        if self.action_repeat < 1:
            raise LegatoError(f"action_repeat must be at least 1; {self.action_repeat} was given")


@dataclass(frozen=True)
class SRL:
    """Sequence Reinforcement Learning: an actor that emits `horizon` actions, taught through a learned model."""

    horizon: int = 4
    """primitive actions per decision while training, J [SRL]"""
    cell: Literal["gru", "rnn"] = "gru"
    """recurrent cell of the actor [SRL]"""
    hidden: int = 256
    """width of the actor and of the critics' two hidden layers [SRL]"""
    model_hidden: tuple[int, int] = (400, 300)
    """widths of the dynamics model's hidden layers [SRL]"""
    batch_size: int = 256
    """transitions per minibatch; an update draws two [SRL]"""
    learning_rate: float = 3e-4
    """Adam step size of actor, critics, model and temperature [SRL]"""
    anneal_over: int = 0
    """updates over which the step size falls towards zero, to a twentieth at least; 0: never [SRL], -1: the run"""
    gamma: float = 0.99
    """discount per primitive step [SRL]"""
    tau: float = 0.005
    """Polyak rate of target critics and target model, every update [SRL]"""
    actor_every: int = 1
    """critic and model updates per update of actor and temperature [SRL]"""

    def __post_init__(self) -> None:
        _check_common(self)
        for name in ("horizon", "actor_every"):
            if getattr(self, name) < 1:
                raise LegatoError(f"{name} must be at least 1; {getattr(self, name)} was given")


CONFIGS: dict[str, type[SAC] | type[SRL]] = {"sac": SAC, "srl": SRL}
