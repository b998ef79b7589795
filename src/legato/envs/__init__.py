"""Where experience comes from: Gymnasium environments, checked and seeded; EnvPool when installed and asked for.

Importing this registers the tasks of `legato.envs.tasks`.
"""

from __future__ import annotations

from typing import Any, Literal

from legato.envs import tasks
from legato.envs.construction import Env, EnvironmentConfig, check_options, known_ids, make, resolve_environment
from legato.envs.description import describe
from legato.envs.environments import Environments, GymnasiumEnvironments, episode_limit, try_environment
from legato.envs.envpool import EnvPoolEnvironments
from legato.envs.space_time import SpaceTime
from legato.errors import LegatoError

__all__ = [
    "Env",
    "EnvironmentConfig",
    "Environments",
    "SpaceTime",
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
    asked: str | EnvironmentConfig, count: int, backend: Literal["gymnasium", "envpool"] = "gymnasium", **kwargs: Any
) -> Environments:
    """`count` copies of an environment, by Gymnasium one after another or by EnvPool's threads."""
    config = EnvironmentConfig(asked) if isinstance(asked, str) else asked
    if backend == "envpool":
        if config.label != config.name:
            raise LegatoError(
                f"EnvPool takes no options and no other time limit; use backend gymnasium: {config.label}"
            )
        return EnvPoolEnvironments(config.name, count)
    return GymnasiumEnvironments(config.name, [make(config, **kwargs) for _ in range(count)])
