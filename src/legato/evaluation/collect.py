"""A policy's episodes as a dataset, or what a run kept in its replay buffer."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from legato.algorithms import algorithm as algorithm_module
from legato.data import formats
from legato.data.trajectories import Trajectories
from legato.envs import Env, EnvironmentConfig, make_vec
from legato.envs.matching import choose_environment, require_fit
from legato.errors import LegatoError, LegatoWarning
from legato.loading import load
from legato.policy import RandomPlans, guard_computation
from legato.rollout import Rollout, stack
from legato.rollout.recording import record
from legato.training import online
from legato.training.clocks import Every, clock_of
from legato.training.policy_file import LoadedPolicy
from legato.training.progress import Progress
from legato.training.run import Run, Which, label


@guard_computation
def collect(
    source: Run | str | Path,
    steps: int | None = None,
    out: str | Path | None = None,
    *,
    replay: bool = False,
    which: Which = "last",
    run_seed: int | None = None,
    env: Env | None = None,
    env_options: Mapping[str, Any] | None = None,
    max_episode_steps: int | None = None,
    every: Every | None = None,
    greedy: bool = False,
    random: bool = False,
    environments: int = 1,
    seed: int = 0,
    quiet: bool = False,
) -> Trajectories:
    """Play a run's policy, or that of a policy folder, for exactly `steps` primitive steps and keep the episodes.

    The policy of `run_seed` (`last` or `best`) draws its actions unless it is `greedy`; `random` ones are uniform, each
    drawn anew. It decides every `every` steps, or with "policy" when it says, by default as in training. `environments`
    play side by side, and the last episode in each is cut: it counts as truncated. Episodes and draws follow from
    `seed`; training and evaluation never meet these episodes. `env`, `env_options` and `max_episode_steps` replace
    those that the policy was trained with (see `train`). What is played with `env_options` does not say of which
    environment it is, as a file names one without.

    With `replay`, nothing is played: the result is the replay buffer of a run's newest checkpoint.

    `out` names a new dataset (see `formats.save`). Raises `LegatoError` for anything that does not fit, before a step
    is made.
    """
    if out is not None:
        formats.check_writable(out)
    path = source.path if isinstance(source, Run) else Path(source)
    if replay:
        played = {"steps": steps is not None, "env": env is not None, "every": every is not None, "greedy": greedy}
        played |= {"env_options": bool(env_options), "max_episode_steps": max_episode_steps is not None}
        played |= {"which": which != "last", "random": random, "environments": environments != 1, "seed": seed != 0}
        if given := [name for name, is_given in played.items() if is_given]:
            raise LegatoError(f"replay exports what the buffer holds and plays nothing: leave out {', '.join(given)}")
        data, environment = online.load_replay(Run(path), run_seed), Run(path).environment_config
    else:
        if steps is None:
            raise LegatoError("how many primitive steps? collect needs steps, or replay to export a replay buffer")
        for name, value, least in (("steps", steps, 1), ("environments", environments, 1), ("seed", seed, 0)):
            if value < least:
                raise LegatoError(f"{name} must be at least {least}; {value} was given")
        if greedy and random:
            raise LegatoError("random actions are never greedy: leave out greedy or random")
        loaded, environment = _to_play(path, run_seed, which, env, env_options, max_episode_steps)
        card = loaded.card
        if random and every is None:
            every = algorithm_module(card.algorithm).plan_length(card.config)
        if random and every == "policy":
            raise LegatoError("random actions do not say when they are drawn again: let `every` be a number of steps")
        clock = clock_of(card.algorithm, card.config, every)
        policy = RandomPlans(loaded.policy, card.spec) if random else loaded.policy
        name = f"{'random' if random else label(card.algorithm, card.config)} on {environment.label}"
        rollout = Rollout(make_vec(environment, min(environments, steps)), card.spec, clock, [seed], "collect")
        keys = None if greedy else jax.random.key(seed)[None]
        with Progress(name, steps, quiet=quiet) as progress:
            data = record(rollout, stack([policy]), steps, keys, name, on_steps=progress.step)
    if environment.options and data.about.environment is not None:
        data = replace(data, about=replace(data.about, environment=None))
        text = f"logs name an environment without options, and these are of {environment.label}: they name none"
        warnings.warn(LegatoWarning(text), stacklevel=2)
    if out is not None:
        formats.save(data, out)
    return data


def _to_play(
    path: Path,
    run_seed: int | None,
    which: Which,
    env: Env | None,
    options: Mapping[str, Any] | None,
    limit: int | None,
) -> tuple[LoadedPolicy, EnvironmentConfig]:
    """The policy in a run or policy folder, and the environment to play it in, which it fits."""
    if not (path / "config.json").exists() and (which != "last" or run_seed is not None):
        raise LegatoError(f"'{path}' is no run folder: which and run_seed pick one of a run's policies")
    loaded = load(path, run_seed, which)
    extra = loaded.card.extra
    known = EnvironmentConfig(
        extra.get("environment") or "", extra.get("env_options") or {}, extra.get("max_episode_steps")
    )
    environment = choose_environment(known, env, options, limit)
    if environment is None:
        raise LegatoError(f"'{path}' does not say which environment its policy is for: name it with env")
    require_fit(environment, loaded.spec, path, loaded.card.algorithm)
    return loaded, environment
