"""Which environment policies are played in: the one that a user names or the one they belong to, if they fit it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from legato.data.spec import Spec
from legato.envs.construction import Env, EnvironmentConfig, check_options, make, resolve_environment
from legato.envs.description import describe
from legato.envs.environments import try_environment
from legato.errors import LegatoError


def choose_environment(
    known: EnvironmentConfig, env: Env | None, options: Mapping[str, Any] | None = None, limit: int | None = None
) -> EnvironmentConfig | None:
    """The environment that a user asks for, or the `known` one of a file; None where neither names any.

    Options go beside the known ones, unless the environment is another.
    """
    name = known.name if env is None else resolve_environment(env, known.name)
    same = name == known.name
    found = {**(known.options if same else {}), **check_options(options or {})}
    return (
        EnvironmentConfig(name, found, known.max_episode_steps if same and limit is None else limit) if name else None
    )


def require_fit(environment: EnvironmentConfig, spec: Spec, path: Path, user: str) -> None:
    """Raise `LegatoError` for an environment that the policy in `path`, of this spec, does not fit."""
    made = make(environment)
    found = describe(made, environment.name, user=user, discrete=spec.choices is not None, images=spec.images)
    try_environment(made, environment.name)
    if found != spec:
        raise LegatoError(
            f"'{environment.name}' has {found.describe()}; the policy in '{path}' was trained with {spec.describe()}"
        )
