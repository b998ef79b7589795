"""What a training run is told beside its algorithm's hyper-parameters, and the named presets.

Imports no JAX, so that commands answer quickly.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from legato.algorithms.configs import (
    BC,
    CONFIGS,
    DS4RW,
    DT,
    IQL,
    ODT,
    OFFLINE,
    ONLINE,
    SRL,
    TT,
    TUNERS,
    TUNES,
    Config,
    OnlineDT,
    Tuner,
)
from legato.errors import LegatoError, unknown

if TYPE_CHECKING:
    from legato.envs import World

Options = dict[str, Any]  # the commands have --env-option NAME=VALUE, and `cli.options` hides this from them
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
    env_options: Options = field(default_factory=dict)
    """arguments of the environment's constructor, each with an --env-option of its own"""
    max_episode_steps: int | None = None
    """primitive steps after which an episode is truncated; by default the environment's own limit"""
    seed: int = 0
    """first seed: parameters, exploration, sampling and every episode derive from it"""
    seeds: int = 1
    """seeds trained together in one process: seed, seed+1, ..."""
    steps: int = 100_000
    """primitive environment steps per seed"""
    start_steps: int = 5_000
    """primitive steps of random plans before the policy acts"""
    updates_per_step: float = 1.0
    """updates per primitive step (per held decision when the algorithm counts decisions)"""
    environments: int = 1
    """environments per seed, stepped side by side"""
    backend: Literal["gymnasium", "envpool"] = "gymnasium"
    """what steps the environments while collecting"""
    capacity: int = 1_000_000
    """transitions that the replay buffer keeps"""
    eval_every: int = 5_000
    """primitive steps between evaluations; their episodes are never trained on nor used for the final scores"""
    eval_episodes: int = 10
    """greedy episodes per evaluation, deciding as often as in training"""
    log_every: int = 500
    """primitive steps between rows of metrics"""
    checkpoint_every: int = 5_000
    """primitive steps between checkpoints; what a kill -9 can cost at most"""

    def __post_init__(self) -> None:
        least = {"seeds": 1, "steps": 1, "start_steps": 0, "environments": 1, "capacity": 1, "eval_every": 1}
        least |= {"eval_episodes": 1, "log_every": 1, "checkpoint_every": 1, "seed": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise LegatoError(f"{name} must be at least {low}; {getattr(self, name)} was given")
        _check_world(self)
        if not 0 < self.updates_per_step < float("inf"):
            raise LegatoError(f"updates_per_step must be positive and finite; {self.updates_per_step} was given")
        _check_seeds(self)


@dataclass(frozen=True)
class OfflineSettings:
    """How long, on which data and how often; the same for every algorithm that learns from logs."""

    dataset: str = ""
    """logged episodes: an .npz or .hdf5 file, an .arrays folder, or a Minari id"""
    env: str = ""
    """Gymnasium id of the environment to evaluate in; without one, nothing is played while training"""
    env_options: Options = field(default_factory=dict)
    """arguments of the environment's constructor, each with an --env-option of its own"""
    max_episode_steps: int | None = None
    """primitive steps after which an episode is truncated; by default the environment's own limit"""
    clip_actions: bool = False
    """move logged actions that lie outside their bounds to the bounds, instead of refusing them"""
    stream: Literal["auto", "always", "never"] = "auto"
    """draw on the host instead of on the device: for sets larger than memory; auto: mapped files above 2 GiB"""
    download: bool = False
    """fetch a Minari dataset that is not on this machine"""
    holdout: float = 0.0
    """share of the episodes, drawn by `seed`, not to learn from, but to show how well their actions are predicted"""
    seed: int = 0
    """first seed: parameters, sampling and evaluation episodes derive from it"""
    seeds: int = 1
    """seeds trained together in one process: seed, seed+1, ..."""
    updates: int = 10_000
    """gradient steps per seed"""
    targets: tuple[float, ...] = ()
    """returns to ask for in evaluations, the first of which picks `best`; by default one that the data supports"""
    eval_every: int = 1_000
    """updates between evaluations, after each of which the policy is kept; counted up to a multiple of 50"""
    eval_episodes: int = 10
    """greedy episodes per evaluation and target"""
    log_every: int = 250
    """updates between rows of metrics, counted up to a multiple of 50"""
    checkpoint_every: int = 1_000
    """updates between checkpoints, counted up to a multiple of 50; what a kill -9 can cost at most"""

    def __post_init__(self) -> None:
        least = {"seeds": 1, "updates": 1, "eval_every": 1, "eval_episodes": 1, "log_every": 1, "checkpoint_every": 1}
        for name, low in {**least, "seed": 0}.items():
            if getattr(self, name) < low:
                raise LegatoError(f"{name} must be at least {low}; {getattr(self, name)} was given")
        _check_world(self)
        if not 0 <= self.holdout < 1:
            raise LegatoError(f"holdout is a share of the episodes, at least 0 and below 1; {self.holdout:g} was given")
        named = [f"{target:g}" for target in self.targets]
        if twice := {name for name in named if named.count(name) > 1}:
            raise LegatoError(f"a target return of {min(twice)} is asked for twice")
        _check_seeds(self)


@dataclass(frozen=True)
class FinetuneSettings:
    """Where, how long and how often a policy goes on learning by acting, and what is guarded meanwhile."""

    env: str = ""
    """Gymnasium id of the environment; by default the one that the run's data came from"""
    env_options: Options = field(default_factory=dict)
    """arguments of the environment's constructor, each with an --env-option of its own"""
    max_episode_steps: int | None = None
    """primitive steps after which an episode is truncated; by default the environment's own limit"""
    which: Literal["last", "best"] = "last"
    """the offline policy to begin with"""
    seed: int = 0
    """first seed: which of the run's policies, exploration, sampling and every episode derive from it"""
    seeds: int = 1
    """seeds fine-tuned together in one process: seed, seed+1, ..., each from the run's policy of that seed"""
    steps: int = 100_000
    """primitive environment steps per seed"""
    environments: int = 1
    """environments per seed, stepped side by side"""
    capacity: int = 60_000
    """primitive steps that the replay keeps"""
    memory: float = 4.0
    """GiB that the replays of all seeds may take; what needs more is refused before it is allocated"""
    target: float | None = None
    """return to ask for at first; by default the policy's own"""
    drop: float = 0.1
    """an evaluation that lies below the offline policy's by more than this share of it is said"""
    rollback: bool = False
    """take a policy back to its best where it has fallen below that by more than this share"""
    eval_every: int = 5_000
    """primitive steps between evaluations, after each of which the policy is kept"""
    eval_episodes: int = 10
    """greedy episodes per evaluation"""
    log_every: int = 1_000
    """primitive steps between rows of metrics"""
    checkpoint_every: int = 25_000
    """primitive steps between checkpoints, as large as the replay; what a kill -9 can cost at most"""

    def __post_init__(self) -> None:
        least = {"seed": 0, "seeds": 1, "steps": 1, "environments": 1, "capacity": 2, "eval_every": 1}
        for name, low in {**least, "eval_episodes": 1, "log_every": 1, "checkpoint_every": 1}.items():
            if getattr(self, name) < low:
                raise LegatoError(f"{name} must be at least {low}; {getattr(self, name)} was given")
        _check_world(self)
        if not 0 < self.memory < float("inf"):
            raise LegatoError(f"memory must be positive and finite; {self.memory} was given")
        if not 0 <= self.drop < float("inf"):
            raise LegatoError(f"drop must be at least 0 and finite; {self.drop} was given")
        _check_seeds(self)


PRESETS: dict[str, str] = {
    "paper": "as published by each algorithm's authors, per environment",
    "cpu": "smaller networks, larger step sizes, schedules short enough for two cores",
}

AnySettings = Settings | OfflineSettings | FinetuneSettings


def _check_world(settings: AnySettings) -> None:
    limit = settings.max_episode_steps
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise LegatoError(f"max_episode_steps must be a whole number of at least 1; {limit} was given")
    if not isinstance(settings.env, str) or not isinstance(settings.env_options, dict):
        raise LegatoError(f"an environment is named by a text and its options by name, not by {settings.env_options!r}")
    if not settings.env and (settings.env_options or limit is not None) and isinstance(settings, OfflineSettings):
        raise LegatoError("options and time limit belong to an environment: name it with --env")


def environment_card(settings: AnySettings) -> dict[str, Any]:
    """What a saved policy says of the environment of its settings."""
    card: dict[str, Any] = {"environment": settings.env}
    card |= {"env_options": dict(settings.env_options)} if settings.env_options else {}
    return card | ({"max_episode_steps": settings.max_episode_steps} if settings.max_episode_steps else {})


def world_of(settings: AnySettings) -> World:
    """The environment of a run's settings, which brings Gymnasium."""
    from legato.envs import World

    return World(settings.env, settings.env_options, settings.max_episode_steps)


# (steps, start_steps, eval_every) where they differ from the paper's 1e6, 10 000 and 5 000; names without version.
_PAPER_SCHEDULES: dict[str, tuple[int, int, int]] = {
    "Pendulum": (30_000, 1_000, 2_500),
    "LunarLanderContinuous": (500_000, 10_000, 2_500),
    "Ant": (5_000_000, 10_000, 5_000),
    "HalfCheetah": (5_000_000, 10_000, 5_000),
    "Humanoid": (10_000_000, 10_000, 5_000),
    "Reacher": (500_000, 10_000, 5_000),
}
_CPU_SCHEDULES: dict[str, tuple[int, int, int]] = {
    "Pendulum": (8_000, 1_000, 1_000),
    "InvertedPendulum": (30_000, 1_000, 2_500),
    "InvertedDoublePendulum": (100_000, 1_000, 2_500),
    "Reacher": (60_000, 1_000, 2_500),
}


# Target returns of the official gym code of Chen et al. (arXiv 2106.01345), first the one that decides.
_PAPER_TARGETS: dict[str, tuple[float, ...]] = {
    "hopper": (3600, 1800),
    "halfcheetah": (12000, 6000),
    "walker2d": (5000, 2500),
}


def preset(name: str, algorithm: str, world: str) -> tuple[Config, AnySettings]:
    """The hyper-parameters and settings that a preset names for an algorithm on an environment, or on a dataset.

    Raises `LegatoError` for an unknown preset or algorithm, naming the nearest.
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    if algorithm not in CONFIGS:
        raise unknown("algorithm", algorithm, CONFIGS)
    return (_online if algorithm in ONLINE else _offline)(name, algorithm, world)


def _online(name: str, algorithm: str, env: str) -> tuple[Config, Settings]:
    config = ONLINE[algorithm]()
    family = env.split("/")[-1].rpartition("-v")[0] or env
    if name == "paper":
        config = replace(config, action_units="environment")
        steps, start, every = _PAPER_SCHEDULES.get(family, (1_000_000, 10_000, 5_000))
    else:
        # Fewer updates, so longer steps, which shrink towards the end: open-loop plans punish the last few per cent.
        config = replace(config, hidden=64, batch_size=64, learning_rate=1e-3, tau=0.01, anneal_over=-1)
        if isinstance(config, SRL):  # what lets long plans be learnt where an episode ends when it goes wrong
            config = replace(config, model_hidden=(128, 128), model_target="difference", execute=-1, recall_ends=True)
        steps, start, every = _CPU_SCHEDULES.get(family, (100_000, 5_000, 5_000))
    settings = Settings(env=env, steps=steps, start_steps=start, eval_every=every, checkpoint_every=every)
    return config, settings


def _offline(name: str, algorithm: str, dataset: str) -> tuple[Config, OfflineSettings]:
    config = OFFLINE[algorithm]()
    settings = OfflineSettings(dataset=dataset)
    if isinstance(config, TT):
        return _trajectory_transformer(name, config, settings)
    if isinstance(config, IQL):
        return _implicit_q_learning(name, config, settings)
    if isinstance(config, ODT):
        return _online_decision_transformer(name, config, settings)
    if name == "paper":
        targets = next((t for family, t in _PAPER_TARGETS.items() if family in dataset.lower()), ())
        if not isinstance(config, BC):
            config = replace(config, scale=1000.0 if targets else 0.0)
        settings = replace(settings, updates=100_000, eval_every=10_000, eval_episodes=100, checkpoint_every=5_000)
        return config, settings if isinstance(config, BC) else replace(settings, targets=targets)
    # Fewer updates, so longer steps, which shrink towards the end; nothing is seen often enough to need dropout.
    config = replace(config, learning_rate=1e-3, warmup=100, anneal_over=-1, dropout=0.0, action_units="auto")
    settings = replace(settings, updates=2_000, eval_every=500, checkpoint_every=500)
    if isinstance(config, BC):
        return replace(config, batch_size=256), settings
    if isinstance(config, DT):  # a table over the steps of an episode is noise until each was seen often
        return replace(config, layers=2, size=128, context=5, positions="rotary"), settings
    # Few whole episodes rather than many stretches: a state that was never that old misleads the policy later on.
    return replace(config, channels=96, order=16, layers=2, norm=True, batch_size=4, learning_rate=3e-3), settings


# Pre-training of the official code of Zheng et al. (arXiv 2202.05607), by words of the dataset's name: step size,
# decay, updates and the return to ask for.
_PAPER_ODT: dict[str, tuple[float, float, int, float]] = {
    "hopper replay": (2e-3, 1e-4, 5_000, 3600.0),
    "hopper": (1e-4, 5e-4, 5_000, 3600.0),
    "walker2d": (1e-3, 1e-3, 10_000, 5000.0),
    "halfcheetah": (1e-4, 5e-4, 5_000, 6000.0),
}


def _online_decision_transformer(name: str, config: ODT, settings: OfflineSettings) -> tuple[ODT, OfflineSettings]:
    if name == "paper":
        words = _words(settings.dataset)
        found = next((of for needed, of in _PAPER_ODT.items() if words.issuperset(needed.split())), None)
        if found is None:
            return config, replace(settings, updates=5_000, eval_every=5_000)
        rate, decay, updates, target = found
        config = replace(config, learning_rate=rate, weight_decay=decay, scale=1000.0)
        return config, replace(settings, updates=updates, eval_every=updates, targets=(target,))
    config = replace(config, learning_rate=1e-3, warmup=100, anneal_over=-1, dropout=0.0, weight_decay=1e-4)
    config = replace(config, layers=2, heads=1, size=128, context=5, positions="rotary", batch_size=64)
    # At the published edge an action at its bound lies 7 out before the tanh, and a normal distribution follows it.
    config = replace(config, optimiser="adamw", multiplier_learning_rate=1e-3, edge=0.01)
    return config, replace(settings, updates=2_000, eval_every=500, checkpoint_every=500)


def _words(dataset: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", dataset.lower()))


# How the official code of Janner et al. learns and plans, by words of the dataset's name, where it differs from its
# base; the first entry whose words are all there.
_PAPER_PLANS: dict[str, dict[str, Any]] = {
    "halfcheetah medium expert": {"beams": 32},
    "halfcheetah medium": {"horizon": 5, "beams": 32},
    "hopper medium replay": {"updates": 312_000},
    "walker2d medium expert": {"horizon": 5},
    "walker2d medium replay": {"horizon": 20, "beams": 32, "action_k": 40, "action_cdf": 0.0, "updates": 312_000},
    "ant medium expert": {},
    "ant": {"horizon": 5, "batch_size": 128, "updates": 390_000},
}


def _trajectory_transformer(name: str, config: TT, settings: OfflineSettings) -> tuple[TT, OfflineSettings]:
    if name == "paper":
        words = _words(settings.dataset)
        found = next((found for needed, found in _PAPER_PLANS.items() if words.issuperset(needed.split())), {})
        updates = found.get("updates", 195_000)
        config = replace(config, anneal_over=80_000, **{k: v for k, v in found.items() if k != "updates"})
        return config, replace(settings, updates=updates, eval_every=updates // 3, checkpoint_every=5_000)
    # A smaller network, which is soon trained, by an optimiser that needs half as many updates; bins with neighbours.
    config = replace(config, layers=2, size=64, heads=4, window=4, context=4, ordered=True, centres="mean", blur=1.5)
    config = replace(config, batch_size=32, optimiser="muon", learning_rate=5e-3, warmup=100, anneal_over=-1)
    config = replace(config, dropout=0.0, weight_decay=0.01)
    # One step ahead, by the mean of what the data may do, weighed by what each is worth: that leaves out the noise that
    # a behaviour acted with.
    config = replace(config, horizon=1, beams=64, expand=1, elite=1.0, mppi=0.1, action_cdf=0.0)
    return config, replace(settings, updates=3_000, eval_every=3_000, eval_episodes=5, checkpoint_every=500)


# How the official code of Kostrikov et al. learns, by words of the dataset's name, where it differs from its base. What
# calls itself sparse is taken to pay 1 for arriving, as AntMaze does.
_PAPER_VALUES: dict[tuple[str, ...], dict[str, Any]] = {
    ("hopper", "halfcheetah", "walker2d"): {"reward_scale": 0.0},
    ("antmaze", "sparse"): {"expectile": 0.9, "beta": 10.0, "reward_shift": -1.0},
    ("kitchen", "pen", "door", "hammer", "relocate"): {"beta": 0.5, "dropout": 0.1},
}


def _implicit_q_learning(name: str, config: IQL, settings: OfflineSettings) -> tuple[IQL, OfflineSettings]:
    words = _words(settings.dataset)
    config = replace(config, **next((how for worlds, how in _PAPER_VALUES.items() if words & set(worlds)), {}))
    if name == "paper":
        every, played = (100_000, 100) if config.reward_shift else (5_000, 10)
        config = replace(config, initialisation="orthogonal")
        return config, replace(settings, updates=1_000_000, eval_every=every, eval_episodes=played)
    # Fewer updates, so longer steps, which shrink towards the end; a third layer, so that V can fall off at a wall.
    config = replace(config, hidden=128, layers=3, batch_size=128, learning_rate=1e-3, tau=0.01, dropout=0.0)
    config = replace(config, anneal_critics=True)
    return config, replace(settings, updates=20_000, eval_every=5_000, checkpoint_every=5_000)


def from_scratch(source: str | Path) -> bool:
    """Is this the name of an algorithm whose policies can be fine-tuned, and no folder?"""
    return bool(TUNES.get(str(source))) and not Path(source).exists()


# Where the cpu preset of ds4-ac differs, by what the environment is called. Walker2d stumbles now and then whatever it
# does: larger and slower critics, more episodes to judge by, more patience.
_CPU_TUNINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "walker2d": (
        {"hidden": 256, "critic_learning_rate": 3e-4, "critic_steps": 7_500, "regret": 0.05}
        | {"anchor": 1.0, "shortest": 0.25, "ahead": 0.1},
        {"drop": 0.1, "eval_episodes": 20},
    ),
}


def tuning_preset(name: str, method: str, env: str, *, scratch: bool = False) -> tuple[Tuner, FinetuneSettings]:
    """The hyper-parameters and settings that a preset names for fine-tuning by a method in an environment.

    From `scratch` there is nothing worth staying near to, and no logs.

    Raises `LegatoError` for an unknown preset or method, naming the nearest.
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    if method not in TUNERS:
        raise unknown("way to fine-tune", method, TUNERS)
    tuning, settings = TUNERS[method](), FinetuneSettings(env=env)
    if isinstance(tuning, OnlineDT):
        if name == "paper":
            return tuning, replace(settings, steps=1_500_000, eval_every=10_000)
        # A short warm-up of its own: pre-training's has ended, and its step size too.
        tuning = replace(tuning, batch_size=64, warmup=100, weight_decay=1e-4)
        tuning = replace(tuning, learning_rate=1e-4, continue_optimiser=False)
        tuning = replace(tuning, critic_steps=3_000, critic_updates=2_000, n_step=4)  # with `td3`
        if scratch:
            return tuning, settings
        # It strays less while collecting, and knows logs of every return.
        tuning = replace(tuning, logs="all", prompt=1.2, spread=0.5, ahead=0.1, average=0.005)
        return tuning, replace(settings, eval_every=2_500, rollback=True, drop=0.05)
    if isinstance(tuning, DS4RW):
        return (replace(tuning, episodes=2_000, batch_size=64) if name == "paper" else tuning), settings
    if name == "paper":
        # A quiet critic phase, returns relabelled, and targets copied now and then, as in the code that descends.
        tuning = replace(tuning, noise=(0.0, 0.75, 0.005), noise_over=90_000, relabel=True, tau=0.0, norm=False)
        return replace(tuning, critic_learning_rate=1e-4, warmup=10_000), replace(settings, steps=1_000_000)
    tuning = replace(tuning, start_steps=1_000, n_step=10, hidden=128, smoothing=0.1, average=0.02)
    if scratch:
        tuning = replace(tuning, critic_steps=2_000, critic_updates=4, batch_size=128, tau=0.01)
        return replace(tuning, learning_rate=3e-4, noise=(0.5, 0.3, 0.1)), settings
    # Critics that are right sooner and have seen what goes wrong, and an actor that strays little from its best.
    tuning = replace(tuning, critic_steps=5_000, critics_per_actor=10, logged=30_000, regret=0.2, average=0.005)
    tuning = replace(tuning, critic_reads_return=False, noise=(0.1, 0.1, 0.1), variation=0.05)
    tuning = replace(tuning, learning_rate=5e-5, anchor=0.5, ahead=0.3)
    settings = replace(settings, eval_every=2_500, rollback=True, drop=0.05)
    of_tuning, of_settings = next((changes for name, changes in _CPU_TUNINGS.items() if name in env.lower()), ({}, {}))
    return replace(tuning, **of_tuning), replace(settings, **of_settings)


def change_options(algorithm: str, config: Config, changes: Mapping[str, Any]) -> Config:
    """The hyper-parameters with the named ones changed.

    Raises `LegatoError` for a name that the algorithm has not (with the nearest), and a value of another type.
    """
    known = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    given: dict[str, Any] = {}
    for name, value in changes.items():
        if name not in known:
            raise unknown(f"option of {algorithm}", name, known)
        value = tuple(value) if isinstance(value, list) else value  # configs are hashed
        if isinstance(known[name], float) and type(value) is int:
            value = float(value)
        if type(value) is not type(known[name]):
            raise LegatoError(f"{name} of {algorithm} is of type {type(known[name]).__name__}; {value!r} was given")
        given[name] = value
    return replace(config, **given)


def override(config: Config | Tuner, settings: AnySettings, **changes: Any) -> tuple[Any, AnySettings]:
    """Change named fields of either; a name that neither has raises `LegatoError` with the nearest."""
    of_config = {f.name for f in dataclasses.fields(config)}
    of_settings = {f.name for f in dataclasses.fields(settings)}
    for name in changes:
        if name not in of_config | of_settings:
            raise unknown("option", name, of_config | of_settings)
    changes = {k: tuple(v) if isinstance(v, list) else v for k, v in changes.items()}  # configs are hashed
    config = replace(config, **{k: v for k, v in changes.items() if k in of_config})  # type: ignore[arg-type]
    return config, replace(settings, **{k: v for k, v in changes.items() if k in of_settings})
