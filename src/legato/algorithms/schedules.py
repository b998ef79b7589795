"""How long and how often, as published per task and for two cores: what presets of several algorithms share."""

from __future__ import annotations

from typing import Any

from legato.algorithms.entry import Task

# --- learning by acting: (steps, start_steps, eval_every) by environment, without version ---

PAPER: dict[str, tuple[int, int, int]] = {
    "Pendulum": (30_000, 1_000, 2_500),
    "LunarLanderContinuous": (500_000, 10_000, 2_500),
    "Ant": (5_000_000, 10_000, 5_000),
    "HalfCheetah": (5_000_000, 10_000, 5_000),
    "Humanoid": (10_000_000, 10_000, 5_000),
    "Reacher": (500_000, 10_000, 5_000),
}
CPU: dict[str, tuple[int, int, int]] = {
    "Pendulum": (8_000, 1_000, 1_000),
    "InvertedPendulum": (30_000, 1_000, 2_500),
    "InvertedDoublePendulum": (100_000, 1_000, 2_500),
    "Reacher": (60_000, 1_000, 2_500),
}

# Fewer updates, so longer steps, which shrink towards the end: open-loop plans punish the last few per cent.
FEWER_UPDATES: dict[str, Any] = {"hidden": 64, "batch_size": 64, "learning_rate": 1e-3, "tau": 0.01, "anneal_over": -1}


def paper(task: Task) -> dict[str, int]:
    """Settings of Patel & Siegelmann, arXiv 2410.08979."""
    return _settings(PAPER.get(task.family, (1_000_000, 10_000, 5_000)))


def cpu(task: Task) -> dict[str, int]:
    """Settings for two cores."""
    return _settings(CPU.get(task.family, (100_000, 5_000, 5_000)))


def _settings(schedule: tuple[int, int, int]) -> dict[str, int]:
    steps, start, every = schedule
    return {"steps": steps, "start_steps": start, "eval_every": every, "checkpoint_every": every}


# --- learning from logs ---

PAPER_LOGS: dict[str, Any] = {"updates": 100_000, "eval_every": 10_000, "eval_episodes": 100, "checkpoint_every": 5_000}
CPU_LOGS: dict[str, Any] = {"updates": 2_000, "eval_every": 500, "checkpoint_every": 500}

# Fewer updates, so longer steps, which shrink towards the end; nothing is seen often enough to need dropout.
FEWER_LOGGED_UPDATES: dict[str, Any] = {"learning_rate": 1e-3, "warmup": 100, "anneal_over": -1, "dropout": 0.0}
FEWER_LOGGED_UPDATES |= {"action_units": "auto"}

# Target returns of the official gym code of Chen et al. (arXiv 2106.01345), first the one that decides.
TARGETS: dict[str, tuple[int, ...]] = {
    "hopper": (3600, 1800),
    "halfcheetah": (12000, 6000),
    "walker2d": (5000, 2500),
}


def paper_targets(task: Task) -> tuple[int, ...]:
    """Returns that are asked for, by what is in the dataset's name; none where that says nothing."""
    return next((targets for name, targets in TARGETS.items() if name in task.name.lower()), ())
