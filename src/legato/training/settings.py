"""The settings of a training run beside its algorithm's hyper-parameters, and the named presets.

Imports no JAX, so that commands answer quickly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from legato.algorithms import entry, finetuners_of
from legato.algorithms.entry import Entry, Task
from legato.errors import LegatoError, unknown
from legato.options import AtLeast, Count, NonNegative, Rate, ShareBelowOne, Whole, unknown_option, validate

if TYPE_CHECKING:
    from legato.envs import EnvironmentConfig

SEEDS = 2**31  # what seeds are counted below: randomness derives from 32 bits
TOGETHER = 65_536  # environments that one process may hold


def _check_seeds(settings: AnySettings) -> None:
    if settings.seed + settings.seeds > SEEDS:
        last = settings.seed + settings.seeds - 1
        raise LegatoError(f"seeds must lie below {SEEDS}; {last} was asked for (seed {settings.seed}, lower it)")
    for name in ("environments", "eval_episodes"):
        members = settings.seeds * getattr(settings, name, 1)
        if members > TOGETHER:
            each = f"{settings.seeds} seeds of {getattr(settings, name, 1)} {name}"
            raise LegatoError(f"{each} are {members} environments in one process; at most {TOGETHER}: lower {name}")


@dataclass(frozen=True)
class Settings:
    """How long, on what and how often; the same for every algorithm that learns by acting."""

    env: str = "Pendulum-v1"
    """Gymnasium id of the environment, or module:Id of one that a module registers"""
    env_options: dict[str, Any] = field(default_factory=dict)
    """arguments of the environment's constructor"""
    max_episode_steps: Annotated[int | None, AtLeast(1)] = None
    """primitive steps after which an episode is truncated; by default the environment's own limit"""
    seed: Whole = 0
    """first seed: parameters, exploration, sampling and every episode derive from it"""
    seeds: Count = 1
    """seeds trained together in one process: seed, seed+1, ..."""
    steps: Count = 100_000
    """primitive environment steps per seed"""
    start_steps: Whole = 5_000
    """primitive steps of random plans before the policy acts"""
    updates_per_step: Rate = 1.0
    """updates per primitive step (per held decision when the algorithm counts decisions)"""
    environments: Count = 1
    """environments per seed, stepped side by side"""
    backend: Literal["gymnasium", "envpool"] = "gymnasium"
    """what steps the environments while collecting"""
    capacity: Count = 1_000_000
    """transitions that the replay buffer keeps"""
    eval_every: Count = 5_000
    """primitive steps between evaluations; their episodes are never trained on nor used for the final scores"""
    eval_episodes: Count = 10
    """greedy episodes per evaluation, deciding as often as in training"""
    log_every: Count = 500
    """primitive steps between rows of metrics"""
    checkpoint_every: Count = 5_000
    """primitive steps between checkpoints; what a kill -9 can lose at most"""

    def __post_init__(self) -> None:
        validate(self)
        _check_environment(self)
        _check_seeds(self)


@dataclass(frozen=True)
class OfflineSettings:
    """How long, on which data and how often; the same for every algorithm that learns from logs."""

    dataset: str = ""
    """logged episodes: an .npz or .hdf5 file, an .arrays folder, or a Minari id"""
    env: str = ""
    """Gymnasium id of the environment to evaluate in; without one, nothing is played while training"""
    env_options: dict[str, Any] = field(default_factory=dict)
    """arguments of the environment's constructor"""
    max_episode_steps: Annotated[int | None, AtLeast(1)] = None
    """primitive steps after which an episode is truncated; by default the environment's own limit"""
    clip_actions: bool = False
    """move logged actions that lie outside their bounds to the bounds, instead of refusing them"""
    stream: Literal["auto", "always", "never"] = "auto"
    """draw on the host instead of on the device: for sets larger than memory; auto: mapped files above 2 GiB"""
    download: bool = False
    """fetch a Minari dataset that is not on this machine"""
    holdout: ShareBelowOne = 0.0
    """share of the episodes, drawn by `seed`, not to learn from, but to show how well their actions are predicted"""
    seed: Whole = 0
    """first seed: parameters, sampling and evaluation episodes derive from it"""
    seeds: Count = 1
    """seeds trained together in one process: seed, seed+1, ..."""
    updates: Count = 10_000
    """gradient steps per seed"""
    targets: tuple[float, ...] = ()
    """returns to ask for in evaluations, the first of which picks `best`; by default one that the data supports"""
    eval_every: Count = 1_000
    """updates between evaluations, after each of which the policy is kept; counted up to a multiple of 50"""
    eval_episodes: Count = 10
    """greedy episodes per evaluation and target"""
    log_every: Count = 250
    """updates between rows of metrics, counted up to a multiple of 50"""
    checkpoint_every: Count = 1_000
    """updates between checkpoints, counted up to a multiple of 50; what a kill -9 can lose at most"""

    def __post_init__(self) -> None:
        validate(self)
        _check_environment(self)
        named = [f"{target:g}" for target in self.targets]
        if twice := {name for name in named if named.count(name) > 1}:
            raise LegatoError(f"a target return of {min(twice)} is asked for twice")
        _check_seeds(self)


@dataclass(frozen=True)
class FinetuneSettings:
    """Where, how long and how often a policy is fine-tuned by acting, and which regressions are reported or undone."""

    env: str = ""
    """Gymnasium id of the environment; by default the one that the run's data came from"""
    env_options: dict[str, Any] = field(default_factory=dict)
    """arguments of the environment's constructor"""
    max_episode_steps: Annotated[int | None, AtLeast(1)] = None
    """primitive steps after which an episode is truncated; by default the environment's own limit"""
    which: Literal["last", "best"] = "last"
    """the offline policy to begin with"""
    seed: Whole = 0
    """first seed: which of the run's policies, exploration, sampling and every episode derive from it"""
    seeds: Count = 1
    """seeds fine-tuned together in one process: seed, seed+1, ..., each from the run's policy of that seed"""
    steps: Count = 100_000
    """primitive environment steps per seed"""
    environments: Count = 1
    """environments per seed, stepped side by side"""
    capacity: Annotated[int, AtLeast(2)] = 60_000
    """primitive steps that the replay keeps"""
    replay_gib: Rate = 4.0
    """GiB that the replays of all seeds may take; what needs more is refused before it is allocated"""
    target: float | None = None
    """return to ask for at first; by default the policy's own"""
    regression_tolerance: NonNegative = 0.1
    """an evaluation that lies below the offline policy's by more than this share of it is reported"""
    rollback: bool = False
    """roll a policy back to its best where it has fallen below that by more than this share"""
    eval_every: Count = 5_000
    """primitive steps between evaluations, after each of which the policy is kept"""
    eval_episodes: Count = 10
    """greedy episodes per evaluation"""
    log_every: Count = 1_000
    """primitive steps between rows of metrics"""
    checkpoint_every: Count = 25_000
    """primitive steps between checkpoints, as large as the replay; what a kill -9 can lose at most"""

    def __post_init__(self) -> None:
        validate(self)
        _check_environment(self)
        _check_seeds(self)


AnySettings = Settings | OfflineSettings | FinetuneSettings


def _check_environment(settings: AnySettings) -> None:
    limit = settings.max_episode_steps
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise LegatoError(f"max_episode_steps must be a whole number of at least 1; {limit} was given")
    if not isinstance(settings.env, str) or not isinstance(settings.env_options, dict):
        raise LegatoError(f"an environment is named by a text and its options by name, not by {settings.env_options!r}")
    if not settings.env and (settings.env_options or limit is not None) and isinstance(settings, OfflineSettings):
        raise LegatoError("options and time limit belong to an environment: name it with `env`")


def environment_card(settings: AnySettings) -> dict[str, Any]:
    """What a saved policy says of the environment of its settings."""
    card: dict[str, Any] = {"environment": settings.env}
    card |= {"env_options": dict(settings.env_options)} if settings.env_options else {}
    return card | ({"max_episode_steps": settings.max_episode_steps} if settings.max_episode_steps else {})


def environment_config(settings: AnySettings) -> EnvironmentConfig:
    """The environment of a run's settings, which brings Gymnasium."""
    from legato.envs import EnvironmentConfig

    return EnvironmentConfig(settings.env, settings.env_options, settings.max_episode_steps)


PRESETS: dict[str, str] = {
    "paper": "as published by each algorithm's authors, per environment",
    "cpu": "smaller networks, larger step sizes, schedules short enough for two cores",
}
KINDS = {"online": Settings, "offline": OfflineSettings, "finetuning": FinetuneSettings}


def preset(name: str, algorithm: str, place: str) -> tuple[Any, AnySettings]:
    """The hyper-parameters and settings that a preset names for an algorithm on an environment, or on a dataset.

    Raises `LegatoError` for an unknown preset or algorithm, naming the nearest.
    """
    _check_preset(name)
    found = entry(algorithm)
    return _chosen(found, name, Task(place), {"env" if found.learns == "online" else "dataset": place})


def finetuning_preset(name: str, method: str, env: str, *, scratch: bool = False) -> tuple[Any, FinetuneSettings]:
    """The hyper-parameters and settings that a preset names for fine-tuning by a method in an environment.

    From `scratch` there is nothing worth staying near to, and no logs.

    Raises `LegatoError` for an unknown preset or method, naming the nearest.
    """
    _check_preset(name)
    config, settings = _chosen(entry(method, "finetuning"), name, Task(env, scratch), {"env": env})
    return config, cast(FinetuneSettings, settings)


def _check_preset(name: str) -> None:
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)


def _chosen(found: Entry, name: str, task: Task, place: dict[str, str]) -> tuple[Any, AnySettings]:
    chosen = found.presets[name](task)
    return found.config(**chosen.options), KINDS[found.learns](**place, **chosen.settings)


def from_scratch(source: str | Path) -> bool:
    """Is this the name of an algorithm whose policies can be fine-tuned, and no folder?"""
    return bool(finetuners_of(str(source))) and not Path(source).exists()


def change_options(algorithm: str, config: Any, changes: Mapping[str, Any]) -> Any:
    """The hyper-parameters with the named ones changed.

    Raises `LegatoError` for a name that the algorithm has not (with the nearest), and a value of another type.
    """
    known = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    given: dict[str, Any] = {}
    for name, value in changes.items():
        if name not in known:
            raise unknown_option(f"option of {algorithm}", name, known)
        value = tuple(value) if isinstance(value, list) else value  # configs are hashed
        if isinstance(known[name], float) and type(value) is int:
            value = float(value)
        if type(value) is not type(known[name]):
            raise LegatoError(f"{name} of {algorithm} is of type {type(known[name]).__name__}; {value!r} was given")
        given[name] = value
    return replace(config, **given)


def override(config: Any, settings: AnySettings, **changes: Any) -> tuple[Any, AnySettings]:
    """Change named fields of either; a name that neither has raises `LegatoError` with the nearest."""
    of_config = {f.name for f in dataclasses.fields(config)}
    of_settings = {f.name for f in dataclasses.fields(settings)}
    for name in changes:
        if name not in of_config | of_settings:
            raise unknown_option("option", name, of_config | of_settings)
    changes = {k: tuple(v) if isinstance(v, list) else v for k, v in changes.items()}  # configs are hashed
    config = replace(config, **{k: v for k, v in changes.items() if k in of_config})  # type: ignore[arg-type]
    return config, replace(settings, **{k: v for k, v in changes.items() if k in of_settings})
