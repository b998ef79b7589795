"""The environment that a run's policies are played in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from legato.envs import Env, EnvironmentConfig
from legato.envs.matching import choose_environment, require_fit
from legato.errors import LegatoError
from legato.training.run import Run
from legato.training.settings import OfflineSettings


def environment_of(
    run: Run,
    env: Env | EnvironmentConfig | None = None,
    options: Mapping[str, Any] | None = None,
    limit: int | None = None,
) -> EnvironmentConfig:
    """The environment to play a run's policies in: what the user names, or where they belong.

    Raises `LegatoError` where none is named, and where the policies do not fit it.
    """
    found = (
        env if isinstance(env, EnvironmentConfig) else choose_environment(run.environment_config, env, options, limit)
    )
    if found is None:
        without = ", or measure its predictions of logged actions with evaluate and a dataset"
        advice = f"name one with `env`{without if isinstance(run.settings, OfflineSettings) else ''}"
        raise LegatoError(f"neither '{run.place}' nor its data names an environment: {advice}")
    if not run.settings.env or found != run.environment_config:  # which was seen to fit before training
        require_fit(found, run.spec, run.path, run.algorithm)
    return found
