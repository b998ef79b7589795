"""What a fine-tuning begins with: the policies of a run, or new ones; and whether all of it fits."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp

from legato.algorithms import algorithm as algorithm_module
from legato.algorithms import entry, finetuner
from legato.data import dataset_statistics, recurrent_replay
from legato.data.spec import Spec
from legato.data.trajectories import Trajectories
from legato.envs import EnvironmentConfig, describe, episode_limit, make, try_environment
from legato.errors import LegatoError
from legato.training import logged_data, policy_file
from legato.training.policy_file import LoadedPolicy
from legato.training.run import Run
from legato.training.settings import FinetuneSettings, change_options, environment_card, environment_config
from legato.training.settings import preset as named_preset


@dataclass(frozen=True)
class InitialPolicies:
    """What a fine-tuning begins with."""

    name: str
    """the run's path, or the algorithm's name where there is no run"""
    algorithm: str
    config: Any
    policies: list[LoadedPolicy]
    """one per seed"""
    run: Run | None = None


def seeds_of(settings: FinetuneSettings) -> range:
    return range(settings.seed, settings.seed + settings.seeds)


def load_initial(before: Run, settings: FinetuneSettings) -> InitialPolicies:
    """The policies of a run. Raises `LegatoError` where it has none of a seed."""
    policies = [policy_file.load(before.policy_path(seed, settings.which)) for seed in seeds_of(settings)]
    return InitialPolicies(str(before.path), before.algorithm, before.config, policies, before)


def new_initial(
    algorithm: str, method: str, preset: str, settings: FinetuneSettings, base: Mapping[str, Any]
) -> InitialPolicies:
    """Untrained policies, of the preset's hyper-parameters but for those in `base`.

    Raises `LegatoError` where nobody says what return to ask for.
    """
    if settings.target is None:
        raise LegatoError("policies that begin from scratch must be told what return to ask for: give `target`")
    spec, _ = describe_environment(environment_config(settings), method)
    config = change_options(algorithm, named_preset(preset, algorithm, settings.env)[0], base)
    module = algorithm_module(algorithm)
    numbers = jnp.asarray(max(abs(settings.target), 1.0)), jnp.asarray(settings.target)  # the unit, and what is asked
    policies = []
    for seed in seeds_of(settings):
        key = jax.random.split(jax.random.key(seed), 4)[3]  # the first three are those of the loop
        card = policy_file.Card(algorithm, config, spec, {**environment_card(settings), "seed": seed, "step": 0})
        learner = module.init(config, spec, key)
        learner = eqx.tree_at(lambda whole: (whole.statistics.scale, whole.statistics.target), learner, numbers)
        policies.append(LoadedPolicy(module.policy(config, learner), card))
    return InitialPolicies(algorithm, algorithm, config, policies)


def check(
    method: str, tuning: Any, settings: FinetuneSettings, origin: InitialPolicies, *, quiet: bool = False
) -> Spec:
    """The spec. Raises `LegatoError` where policy, fine-tuner, environment and replay do not fit."""
    spec, limit = describe_environment(environment_config(settings), method)
    try_environment(make(environment_config(settings)), settings.env)
    loaded = origin.policies[0]
    for what, here, there in (
        ("observations of so many numbers", loaded.spec.observation_size, spec.observation_size),
        ("discrete actions", loaded.spec.choices, spec.choices),
        ("actions of so many numbers", loaded.spec.action_size, spec.action_size),
        ("bounds of the actions", (loaded.spec.low, loaded.spec.high), (spec.low, spec.high)),
    ):
        if here != there:
            raise LegatoError(
                f"the policies of '{origin.name}' and '{settings.env}' differ in {what}: {here} and {there}"
            )
    module, base = finetuner(method), origin.config
    module.check(tuning, base, spec, limit)
    replay = module.replay
    rows, row = replay.size(tuning, base, spec, settings.capacity, limit or module.longest_episode(base))
    if limit is not None and limit + 1 > rows:
        raise LegatoError(f"capacity {settings.capacity} does not hold one episode of '{settings.env}' ({limit} steps)")
    allowed = settings.replay_gib * 2**30 / settings.seeds
    needed = recurrent_replay.checked_size(rows, row, allowed, settings.capacity, smaller=replay.SMALLER)
    each = " per seed" if settings.seeds > 1 else ""
    if not quiet:
        print(f"the replay takes {needed / 2**30:.2f} GiB{each}", file=sys.stderr)  # noqa: T201
    if settings.target is not None and origin.run is not None:
        low, high = (float(cast(Any, loaded.policy).statistics.deciles[i]) for i in (0, -1))
        dataset_statistics.warn_of_targets([settings.target], low, high)
    return spec


def continued_learners(origin: InitialPolicies, method: str, tuning: Any, settings: FinetuneSettings) -> Any:
    """The learners that a run ended with, where a fine-tuner continues with their optimisers; None where it does
    not.
    """
    found = entry(method, "finetuning")
    if origin.run is None or "continues" not in found.offers or not found.function("continues")(tuning):
        return None
    if settings.which != "last":
        raise LegatoError(
            f"the optimiser goes on from where '{origin.name}' ended, not from its {settings.which} policy: "
            "leave out which, or begin with a new one (continue_optimiser off)"
        )
    statistics = cast(Any, origin.policies[0].policy).statistics
    return policy_file.newest_learners(origin.run, seeds_of(settings), statistics)


def load_logs(before: Run, dataset: str | None = None) -> Trajectories:
    """The data that the offline policies learnt from. Raises `LegatoError` where it is not there any more."""
    return logged_data.load_dataset(before, dataset)


def describe_environment(config: EnvironmentConfig, method: str) -> tuple[Spec, int | None]:
    """What an environment is like, and after how many steps it ends its episodes."""
    environment = make(config)
    spec = describe(environment, config.name, user=method, discrete=True)
    limit = episode_limit(environment)
    environment.close()
    return spec, limit
