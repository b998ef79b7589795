"""What an environment knows of itself beyond Gymnasium's interface, where nothing wrapped around it changes that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

from legato.envs.checked import Checked
from legato.envs.failures import in_one_line
from legato.errors import LegatoError


def unchanged(environment: Any) -> Any | None:
    """The environment within wrappers that change neither observations nor rewards nor terminations.

    None within any other: what it knows of itself need not hold there.
    """
    while isinstance(environment, gymnasium.Wrapper):
        if not isinstance(environment, Checked | OrderEnforcing | PassiveEnvChecker | TimeLimit):
            return None
        environment = environment.env
    return environment


def known_returns(environment: Any, lengths: Sequence[int], limit: int | None) -> tuple[float, ...] | None:
    """The mean return of the best policy that decides every so many primitive steps, one for each of the lengths.

    An environment tells it by a method `known_return(steps_per_decision)`, which may answer None; then all is None, as
    it is where a `limit` other than the registered one truncates episodes. Raises `LegatoError` for what the method
    raises, and for an answer that is no finite number.
    """
    inner = unchanged(environment)
    ask = getattr(inner, "known_return", None)
    if ask is None or limit != _registered_limit(environment):
        return None
    name = type(inner).__name__
    try:
        answers = [ask(length) for length in lengths]
        found = None if any(answer is None for answer in answers) else tuple(float(answer) for answer in answers)
    except Exception as problem:  # whatever a user's environment does
        raise LegatoError(f"known_return of environment '{name}' failed: {in_one_line(problem)}") from problem
    if found is not None and not np.isfinite(found).all():
        raise LegatoError(f"known_return of environment '{name}' must be finite numbers or None; it is {found}")
    return found


def _registered_limit(environment: Any) -> int | None:
    kind = None if environment.spec is None else gymnasium.registry.get(environment.spec.id)
    return None if kind is None else kind.max_episode_steps
