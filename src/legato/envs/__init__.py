"""Where experience comes from: Gymnasium environments, checked and seeded; EnvPool when installed and asked for.

Importing this registers the tasks of `legato.envs.tasks`.
"""

from __future__ import annotations

from typing import Any, Literal

from legato.envs import tasks
from legato.envs.construction import Env, World, check_options, known_ids, make, resolve_environment
from legato.envs.description import describe
from legato.envs.environments import Environments, GymnasiumEnvironments, episode_limit, try_environment
from legato.envs.envpool import EnvPoolEnvironments
from legato.errors import LegatoError

__all__ = [
    "Env",
    "Environments",
    "World",
    "check_options",
    "describe",
    "episode_limit",
    "known_ids",
    "make",
    "make_vec",
]
__all__ += ["make_vec", "resolve_environment", "tasks", "try_environment"]

tasks.register()


def make_vec(
    asked: str | World, count: int, backend: Literal["gymnasium", "envpool"] = "gymnasium", **kwargs: Any
) -> Environments:
    """`count` copies of an environment, by Gymnasium one after another or by EnvPool's threads."""
    world = World(asked) if isinstance(asked, str) else asked
    if backend == "envpool":
        if world.label != world.name:
            raise LegatoError(f"EnvPool takes no options and no other time limit; use backend gymnasium: {world.label}")
        return EnvPoolEnvironments(world.name, count)
    return GymnasiumEnvironments(world.name, [make(world, **kwargs) for _ in range(count)])
