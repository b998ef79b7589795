"""What a training run is told beside its algorithm's hyper-parameters, and the named presets.

Imports no JAX, so that commands answer quickly.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from typing import Any, Literal

from legato.algorithms.configs import CONFIGS, SAC, SRL
from legato.errors import LegatoError, unknown


@dataclass(frozen=True)
class Settings:
    """How long, on what and how often; the same for every algorithm that learns by acting."""

    env: str = "Pendulum-v1"
    """Gymnasium id of the environment"""
    seed: int = 0
    """first seed: parameters, exploration, sampling and every episode derive from it"""
    seeds: int = 1
    """seeds trained together in one process: seed, seed+1, ..."""
    steps: int = 100_000
    """primitive environment steps per seed"""
    start_steps: int = 5_000
    """primitive steps of random plans before the policy acts"""
    updates_per_step: float = 1.0
    """updates per primitive step (per held decision when the algorithm counts decisions)"""
    environments: int = 1
    """environments per seed, stepped side by side"""
    backend: Literal["gymnasium", "envpool"] = "gymnasium"
    """what steps the environments while collecting"""
    capacity: int = 1_000_000
    """transitions that the replay buffer keeps"""
    eval_every: int = 5_000
    """primitive steps between evaluations; their episodes are never trained on nor used for the final scores"""
    eval_episodes: int = 10
    """greedy episodes per evaluation, deciding as often as in training"""
    log_every: int = 500
    """primitive steps between rows of metrics"""
    checkpoint_every: int = 5_000
    """primitive steps between checkpoints; what a kill -9 can cost at most"""

    def __post_init__(self) -> None:
        least = {"seeds": 1, "steps": 1, "start_steps": 0, "environments": 1, "capacity": 1, "eval_every": 1}
        least |= {"eval_episodes": 1, "log_every": 1, "checkpoint_every": 1, "seed": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise LegatoError(f"{name} must be at least {low}; {getattr(self, name)} was given")
        if not 0 < self.updates_per_step < float("inf"):
            raise LegatoError(f"updates_per_step must be positive and finite; {self.updates_per_step} was given")


PRESETS: dict[str, str] = {
    "paper": "as published by Patel & Siegelmann (arXiv 2410.08979), per environment",
    "cpu": "width 128, batch 128, larger and annealed step sizes, schedules short enough for two cores",
}

# (steps, start_steps, eval_every) where they differ from the paper's 1e6, 10 000 and 5 000; names without version.
_PAPER_SCHEDULES: dict[str, tuple[int, int, int]] = {
    "Pendulum": (30_000, 1_000, 2_500),
    "LunarLanderContinuous": (500_000, 10_000, 2_500),
    "Ant": (5_000_000, 10_000, 5_000),
    "HalfCheetah": (5_000_000, 10_000, 5_000),
    "Humanoid": (10_000_000, 10_000, 5_000),
    "Reacher": (500_000, 10_000, 5_000),
}
_CPU_SCHEDULES: dict[str, tuple[int, int, int]] = {
    "Pendulum": (8_000, 1_000, 1_000),
    "InvertedPendulum": (30_000, 1_000, 2_500),
    "Reacher": (60_000, 1_000, 2_500),
}


def preset(name: str, algorithm: str, env: str) -> tuple[SAC | SRL, Settings]:
    """The hyper-parameters and settings that a preset names for an algorithm on an environment.

    Raises `LegatoError` for an unknown preset or algorithm, naming the nearest.
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    if algorithm not in CONFIGS:
        raise unknown("algorithm", algorithm, CONFIGS)
    config = CONFIGS[algorithm]()
    family = env.split("/")[-1].rpartition("-v")[0] or env
    if name == "paper":
        steps, start, every = _PAPER_SCHEDULES.get(family, (1_000_000, 10_000, 5_000))
    else:
        # Fewer updates, so longer steps, which shrink towards the end: open-loop plans punish the last few per cent.
        config = replace(config, hidden=128, batch_size=128, learning_rate=1e-3, tau=0.01, anneal_over=-1)
        steps, start, every = _CPU_SCHEDULES.get(family, (100_000, 5_000, 5_000))
    settings = Settings(env=env, steps=steps, start_steps=start, eval_every=every, checkpoint_every=every)
    return config, settings


def override(config: SAC | SRL, settings: Settings, **changes: Any) -> tuple[SAC | SRL, Settings]:
    """Change named fields of either; a name that neither has raises `LegatoError` with the nearest."""
    of_config = {f.name for f in dataclasses.fields(config)}
    of_settings = {f.name for f in dataclasses.fields(settings)}
    for name in changes:
        if name not in of_config | of_settings:
            raise unknown("option", name, of_config | of_settings)
    changes = {k: tuple(v) if isinstance(v, list) else v for k, v in changes.items()}  # configs are hashed
    config = replace(config, **{k: v for k, v in changes.items() if k in of_config})  # type: ignore[arg-type]
    return config, replace(settings, **{k: v for k, v in changes.items() if k in of_settings})
