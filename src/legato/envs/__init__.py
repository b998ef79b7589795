"""Where experience comes from: Gymnasium environments, checked and seeded; EnvPool when installed and asked for.

Importing this registers the tasks of `legato.envs.tasks`.
"""

from __future__ import annotations

from typing import Any, Literal

from legato.envs import tasks
from legato.envs.environments import Environments, GymnasiumEnvironments, describe, known_ids, make
from legato.envs.envpool import EnvPoolEnvironments

__all__ = ["Environments", "describe", "known_ids", "make", "make_vec", "tasks"]

tasks.register()


def make_vec(
    environment_id: str, count: int, backend: Literal["gymnasium", "envpool"] = "gymnasium", **kwargs: Any
) -> Environments:
    """`count` copies of an environment, by Gymnasium one after another or by EnvPool's threads."""
    if backend == "envpool":
        return EnvPoolEnvironments(environment_id, count)
    return GymnasiumEnvironments(environment_id, [make(environment_id, **kwargs) for _ in range(count)])
