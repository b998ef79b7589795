"""A rollout of so many primitive steps, as logged episodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import PRNGKeyArray

from legato.data.trajectories import About, Trajectories
from legato.policy import Policy
from legato.rollout.experience import Experience, to_trajectories
from legato.rollout.rollout import Rollout

TOGETHER = 100  # primitive steps between reports


def record(
    rollout: Rollout,
    policies: Policy[Any],
    steps: int,
    keys: PRNGKeyArray | None,
    name: str,
    *,
    on_steps: Callable[[int], None] = lambda done: None,
) -> Trajectories:
    """Exactly so many primitive steps, whichever of the rollout's members made them; its environments are closed.

    The episodes are those of a dataset of this `name`. `on_steps(done)` is called every `TOGETHER` steps of a member.
    """
    members = rollout.environments.count
    parts: list[Experience] = []
    try:
        while (left := -(-steps // members) - rollout.time) > 0:
            parts.append(rollout.run(policies, min(left, TOGETHER), keys)[0])
            on_steps(min(rollout.time * members, steps))
    finally:
        rollout.environments.close()
    experience = Experience(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    about = About.of(name, rollout.environments.name, rollout.spec)
    about = replace(about, start=getattr(rollout.environments, "start", 0))  # files count discrete actions as it does
    return to_trajectories(experience, about, steps)
