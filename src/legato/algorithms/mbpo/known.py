"""What an environment says of its own rewards and ends, for a model that need not learn them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from jaxtyping import Array

from legato.algorithms.mbpo.config import FIELD_MODELS, ModelBased
from legato.data.spec import Spec
from legato.errors import LegatoError
from legato.models.environment_model import Reward, Rule
from legato.models.terminations import termination_rule
from legato.nn.circulant import Forcing


class Known(NamedTuple):
    """What an environment says of itself."""

    reward: Reward | None
    rule: Rule | None
    forcing: Forcing | None = None
    """where its observation is a field on a periodic grid that actions force"""


@dataclass(frozen=True)
class OfUnitActions:
    """What is known in the environment's units, of actions in units of their bounds."""

    function: Callable[[Any, Any, Any], Any]
    spec: Spec

    def __call__(self, s: Array, a: Array, s_next: Array) -> Array:
        return self.function(s, self.spec.denormalise(a), s_next)


@lru_cache(maxsize=8)
def known_functions(environment: str) -> Known:
    """What is known of the environment that is written so (`as_text`); nothing of "".

    Raises `LegatoError` for text that is none, and where it cannot be made.
    """
    if not environment:
        return Known(None, None)
    from legato.envs import EnvironmentConfig, make
    from legato.envs.known import unchanged

    try:
        asked = EnvironmentConfig(**json.loads(environment))
    except (ValueError, TypeError) as problem:
        raise LegatoError(f"`known_from` is an environment as JSON, which a run writes itself ({problem})") from None
    made = make(asked)
    try:
        inner = unchanged(made)
        reward, forcing = (getattr(inner, name, None) for name in ("known_reward", "grid_forcing"))
        return Known(reward, termination_rule(made), forcing)
    finally:
        made.close()


def as_text(environment: Any) -> str:
    """An `EnvironmentConfig` as text."""
    return json.dumps({"name": environment.name, "options": dict(environment.options)}, sort_keys=True)


def resolve(config: ModelBased, environment: Any) -> dict[str, Any]:
    """The hyper-parameters that the environment decides, an `EnvironmentConfig` or None where there is none.

    Raises `LegatoError` for a reward or a rule that is to be known and is not.
    """
    reference = "" if environment is None else as_text(environment)
    found = known_functions(reference)
    named = "the environment" if environment is None else f"'{environment.name}'"
    if config.reward == "known" and found.reward is None:
        raise LegatoError(f"the reward of {named} is not known from (s, a, s'): learn it, `reward=learned`")
    if config.termination == "rule" and found.rule is None:
        raise LegatoError(f"no rule is known by which {named} terminates: learn one, `termination=learned`")
    if config.model in FIELD_MODELS and found.forcing is None:
        why = "no periodic field that is observed at all its points, without noise (it has no `grid_forcing`)"
        raise LegatoError(f"`model={config.model}` is for periodic fields; {named} is {why}: take `model=mlp`")
    if config.model in FIELD_MODELS and config.reward == "learned":
        raise LegatoError(f"`model={config.model}` predicts no rewards: take `reward=known`, or `model=mlp`")
    termination = config.termination
    if termination == "auto":
        termination = "learned" if found.rule is None else "rule"
    needed = config.reward == "known" or termination == "rule" or config.model in FIELD_MODELS
    return {"termination": termination, "known_from": reference if needed else ""}
