"""Gymnasium environments for the rollout: built by id, described, checked at every step, many side by side.

Gymnasium's own vector environments reset finished members by themselves, or refuse to step while one is finished. The
rollout needs neither: it seeds every episode, and in evaluation members finish at different times. So `Environments`
steps any subset and never resets on its own.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import importlib.util
import json
import operator
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium import error, spaces

from legato.data.spec import UNBOUNDED, Spec
from legato.errors import LegatoError, unknown

# What to install when an environment's dependency is missing, by the package Gymnasium asks for.
_EXTRAS = {"mujoco": "mujoco", "Box2D": "box2d", "box2d": "box2d", "pygame": "classic"}


def known_ids() -> list[str]:
    """Every registered Gymnasium id, newest versions included, sorted."""
    return sorted(str(name) for name in gymnasium.registry)


# Families that Gymnasium-Robotics registers when it is imported, which takes a second.
_ROBOTICS = ("Adroit", "AntMaze", "Fetch", "FrankaKitchen", "HandManipulate", "HandReach", "PointMaze")


@dataclass(frozen=True)
class World:
    """An environment as a user or a run asks for it."""

    name: str
    """a Gymnasium id, `module:Id`, or `module:qualname` of the function that makes it"""
    options: Mapping[str, Any] = field(default_factory=dict)
    """arguments of its constructor, as JSON has them"""
    max_episode_steps: int | None = None
    """primitive steps after which an episode is truncated; by default the environment's own limit"""

    def __post_init__(self) -> None:
        limit = self.max_episode_steps
        if not isinstance(self.name, str) or not isinstance(self.options, Mapping):
            raise LegatoError(f"an environment has a name and options by name, not {self.name!r} and {self.options!r}")
        if limit is not None and (not isinstance(limit, int) or limit < 1):
            raise LegatoError(f"max_episode_steps must be a whole number of at least 1; {limit!r} was given")

    @property
    def label(self) -> str:
        """Its name, and what is different in it: `Pendulum-v1 (g=5.0)`."""
        told = [f"{name}={value}" for name, value in self.options.items()]
        told += [f"max_episode_steps={self.max_episode_steps}"] if self.max_episode_steps else []
        return f"{self.name} ({', '.join(told)})" if told else self.name


# What the user gave in this process, beside modules, which `sys.modules` knows: functions that make environments, by
# the name under which a run records them, and options that a file must not bring by itself.
_factories: dict[str, Callable[..., Any]] = {}
_given: set[str] = set()

# What `gymnasium.make` takes beside an environment's own options.
RESERVED = {"id", "disable_env_checker", "vectorization_mode", "max_episode_steps", "render_mode"}

Env = str | Callable[..., gymnasium.Env]
"""what a user names an environment by: an id, or what makes it"""


def resolve_environment(env: Env, recorded: str | None = None) -> str:
    """The name of an environment that the user gives, in Python or on the command line: an id, or what makes it.

    Only here is the module of a `module:Id` imported, from the working directory too; where it registers no such id, a
    function or class of this name makes the environment. A function is known in this process by `module:qualname`, or
    as the one that a run has `recorded` under this name.

    Raises `LegatoError` for a module that cannot be imported or has no such environment, and for an instance.
    """
    if not isinstance(env, str):
        return _known(env, recorded)
    module, colon, name = env.partition(":")
    if colon:
        with _beside():
            try:
                found = importlib.import_module(module)
            except ModuleNotFoundError as problem:
                raise _missing(env, problem) from problem
            except Exception as problem:  # whatever a user's module does
                raise LegatoError(f"environment '{env}': importing '{module}' failed: {_worded(problem)}") from problem
            if (spec := _registered(name)) is not None:  # what it names is imported from the same places
                with suppress(Exception):  # said when it is made
                    importlib.import_module(str(spec.entry_point).partition(":")[0])
            elif callable(maker := _attribute(found, name)):
                _factories[env] = maker
            else:
                known = [f"{module}:{other}" for other in known_ids()]
                raise unknown("environment", env, known, f"'{module}' registers no such id and has no such function")
    return env


def _known(maker: Callable[..., Any], recorded: str | None) -> str:
    """The name of a function that makes environments, of its own in this process."""
    if isinstance(maker, gymnasium.Env) or not callable(maker):
        given = f"an object of {type(maker).__name__} was given"
        raise LegatoError(f"an environment is given by its id or by the class or function that makes it; {given}")
    inner = maker.func if isinstance(maker, partial) else maker
    name = f"{inner.__module__}:{getattr(inner, '__qualname__', type(inner).__qualname__)}"
    if recorded is not None and recorded.partition("#")[0] == name:
        name = recorded
    else:
        base, number = name, 1
        while name in _factories and _factories[name] != maker:  # another lambda of the same place, or a new cell
            number += 1
            name = f"{base}#{number}"
    _factories[name] = maker
    return name


def check_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of an environment that the user gives, as a run keeps them.

    Raises `LegatoError` for what JSON does not hold, and for what has an option of its own.
    """
    for name in options:
        if not str(name).isidentifier() or name in RESERVED - {"max_episode_steps", "render_mode"}:
            raise LegatoError(f"'{name}' is no option of an environment")
        if name in ("max_episode_steps", "render_mode"):
            instead = "--max-episode-steps" if name == "max_episode_steps" else "legato play --out film.gif"
            raise LegatoError(f"'{name}' is no option of an environment here: see {instead}")
    try:
        found = json.loads(json.dumps(dict(options)))
    except (TypeError, ValueError) as problem:
        what = "options of an environment are kept as JSON; give a function that makes it instead"
        raise LegatoError(f"{what} ({problem})") from None
    _given.update(_option(name, value) for name, value in found.items())
    return found


def _option(name: str, value: Any) -> str:
    return json.dumps([name, value], sort_keys=True)


def _harmless(value: Any) -> bool:
    """Is this a number, a plain word, or made of these? Other texts may be paths or modules."""
    if isinstance(value, str):
        return re.fullmatch(r"[\w-]*", value) is not None
    if isinstance(value, Mapping):
        return all(_harmless(part) for pair in value.items() for part in pair)
    if isinstance(value, list | tuple):
        return all(map(_harmless, value))
    return value is None or isinstance(value, bool | int | float)


def make(asked: str | World, **kwargs: Any) -> Any:
    """One environment, wrapped in `Checked`.

    No module is imported that the environment's name brings along: names come from files as well, and those of
    strangers are data. A `module:Id` is made where its module is loaded, which `resolve_environment` does for a user;
    entry points and arguments are those of Gymnasium's registry.

    Raises `LegatoError` for an unknown id (naming the nearest), a module that nobody named, a missing optional
    dependency (naming the extra), and whatever its constructor raises.
    """
    world = World(asked) if isinstance(asked, str) else asked
    name = world.name
    if reserved := sorted(RESERVED & set(world.options)):
        raise LegatoError(f"'{reserved[0]}' is no option of the environment '{name}'")
    for option, value in world.options.items():
        if not _harmless(value) and _option(option, value) not in _given:
            raise LegatoError(
                f"option {option}={value!r} of '{name}' may name a file or a module, and a file asks for it: pass "
                f"--env-option {option}={value} yourself, in Python env_options"
            )
    with warnings.catch_warnings(), _quiet_mujoco(name):
        warnings.simplefilter("ignore")  # 'v4 is out of date': the caller chose the version
        try:
            environment = _made(world, {**world.options, **kwargs})
        except LegatoError:
            raise
        except (
            error.NameNotFound,
            error.VersionNotFound,
            error.NamespaceNotFound,
            error.UnregisteredEnv,
        ) as problem:
            raise _unknown(name) from problem
        except (error.DependencyNotInstalled, ImportError) as problem:
            raise _missing(name, problem) from problem
        except error.Error as problem:
            raise LegatoError(f"environment '{name}': {' '.join(str(problem).split())}") from problem
        except Exception as problem:  # whatever a constructor does
            advice = "; give its arguments with --env-option NAME=VALUE" if "argument" in str(problem) else ""
            raise LegatoError(f"environment '{name}' could not be made: {_worded(problem)}{advice}") from problem
    return Checked(environment, name)


def _made(world: World, options: dict[str, Any]) -> gymnasium.Env:
    limit = world.max_episode_steps
    if world.name in _factories:
        environment = _factories[world.name](**options)
        if not isinstance(environment, gymnasium.Env):
            what = type(environment).__name__
            raise LegatoError(f"environment '{world.name}': its function returned {what}, no gymnasium.Env")
        return environment if limit is None else gymnasium.wrappers.TimeLimit(environment, limit)
    module, colon, name = world.name.partition(":")
    name = name if colon else module
    if colon and (module not in sys.modules or _registered(name) is None):
        function = "" if re.search(r"-v\d+$", name) else ", or where a function makes it, env=that function,"
        raise LegatoError(
            f"environment '{world.name}' is not made: its module is imported only when you name it yourself: pass "
            f"--env {world.name}, in Python env='{world.name}'{function} if you trust it"
        )
    if name.startswith(_ROBOTICS):
        gymnasium.register_envs(_installed("gymnasium_robotics"))
    return gymnasium.make(name, max_episode_steps=limit, disable_env_checker=True, **options)


def _installed(module: str) -> Any:
    """A module of an installed package; one that merely lies in the working directory is not imported."""
    try:
        place = Path(str(importlib.metadata.distribution(module).locate_file(""))).resolve()
    except importlib.metadata.PackageNotFoundError as problem:
        raise ModuleNotFoundError(f"No module named '{module}'", name=module) from problem
    found = importlib.util.find_spec(module)
    if found is None or not Path(str(found.origin)).resolve().is_relative_to(place):
        raise ModuleNotFoundError(f"No module named '{module}'", name=module)
    return importlib.import_module(module)


def _registered(name: str) -> Any:
    """What Gymnasium's registry has under an id without a module; None where it has nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there are newer versions
            return None if ":" in name else gymnasium.spec(name)
    except error.Error:
        return None


def _unknown(name: str) -> LegatoError:
    known = [*known_ids()]
    found = unknown("environment", name, known, "see 'legato list envs'")
    if ":" in name or difflib.get_close_matches(name.lower(), map(str.lower, known), cutoff=0.85):
        return found
    return LegatoError(f"{found}; one that a module of yours registers is 'my_module:{name}'")


def _attribute(module: Any, name: str) -> Any:
    try:
        return operator.attrgetter(name)(module)
    except AttributeError:
        return None


def _worded(problem: Exception) -> str:
    return " ".join(f"{type(problem).__name__}: {problem}".split())


@contextmanager
def _beside() -> Iterator[None]:
    """Modules are found in the working directory too, after all other places; a console script does not look there."""
    here = str(Path.cwd())
    if here in sys.path or "" in sys.path:
        yield
        return
    sys.path.append(here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with suppress(ValueError):
            sys.path.remove(here)


@contextmanager
def _quiet_mujoco(environment_id: str) -> Iterator[None]:
    """Of the models that Gymnasium brings, MuJoCo says what no user can change: on stderr, and in a file here."""
    kind = gymnasium.registry.get(environment_id)
    if kind is None or "mujoco" not in str(kind.entry_point) or importlib.util.find_spec("mujoco") is None:
        yield
        return
    mujoco: Any = importlib.import_module("mujoco")
    mujoco.set_mju_user_warning(lambda text: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(None)


def _missing(name: str, problem: Exception) -> LegatoError:
    if isinstance(problem, ModuleNotFoundError) and problem.name == "gymnasium_robotics":
        return LegatoError(f"environment '{name}' needs a package that is missing: pip install 'legato[robotics]'")
    module = name.partition(":")[0]
    if ":" in name and isinstance(problem, ModuleNotFoundError) and problem.name == module:
        where = f"there is no {module}.py in this folder, and no installed module of this name"
        return LegatoError(f"environment '{name}': {where}")
    absent = isinstance(problem, error.DependencyNotInstalled)  # else it has moved, or an import of its own failed
    extra = next((e for package, e in _EXTRAS.items() if absent and package in str(problem)), None)
    advice = f"pip install 'legato[{extra}]'" if extra else str(problem).splitlines()[0]
    return LegatoError(f"environment '{name}' needs a package that is missing: {advice}")


class Checked(gymnasium.Wrapper):
    """An environment that may return only finite numbers, in observations of one shape; else the place is named."""

    def __init__(self, env: gymnasium.Env, name: str):
        super().__init__(env)
        self.name = name
        self.step_number = 0

    def reset(self, **kwargs: Any) -> Any:
        self.step_number = 0
        found = self.env.reset(**kwargs)
        if not isinstance(found, tuple) or len(found) != 2:
            raise LegatoError(
                f"environment '{self.name}' is of an older interface: Gymnasium's reset returns (observation, info)"
            )
        return self._checked(found[0]), found[1]

    def step(self, action: Any) -> Any:
        self.step_number += 1
        try:
            observation, reward, terminated, truncated, info = self.env.step(action)
        except (LegatoError, error.Error):
            raise
        except Exception as problem:  # whatever a user's environment does
            if self.step_number == 1:
                raise  # said where an environment is first tried
            where = f"at step {self.step_number} of an episode"
            raise LegatoError(f"environment '{self.name}' failed {where}: {_worded(problem)}") from problem
        try:
            number = float(np.asarray(reward).item())
        except (TypeError, ValueError):
            number = np.nan
        if not np.isfinite(number):
            raise LegatoError(
                f"environment '{self.name}' returned reward {reward} at step {self.step_number} of an episode"
            )
        return self._checked(observation), number, terminated, truncated, info

    def render(self) -> Any:
        try:
            return self.env.render()
        except error.DependencyNotInstalled as problem:
            raise _missing(self.name, problem) from problem

    def _checked(self, observation: Any) -> np.ndarray:
        try:
            with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused below
                array = np.asarray(observation, np.float32)
        except (TypeError, ValueError) as problem:
            raise LegatoError(
                f"environment '{self.name}' returned an observation that is no array of numbers "
                f"at step {self.step_number} of an episode"
            ) from problem
        expected = self.env.observation_space.shape
        if array.shape != expected:
            raise LegatoError(
                f"environment '{self.name}' changed its observation from shape {expected} to {array.shape} "
                f"at step {self.step_number} of an episode"
            )
        array = array.ravel()
        if not np.isfinite(array).all():
            place = int(np.flatnonzero(~np.isfinite(array))[0])
            raise LegatoError(
                f"environment '{self.name}' returned {array[place]} in observation[{place}] "
                f"at step {self.step_number} of an episode"
            )
        return array


def describe(
    environment: Any,
    name: str,
    user: str = "",
    supporters: Sequence[str] = (),
    *,
    discrete: bool = False,
    choosers: Sequence[str] = (),
) -> Spec:
    """The environment's spec: a flat observation and a bounded continuous action, or a choice where that is supported.

    `user` is the algorithm that asks and `supporters` those that would take what it cannot, `choosers` those that learn
    choices from logs; all only word the error.
    Raises `LegatoError` for dict and other spaces, for actions without finite bounds, and for choices unless
    `discrete`.
    """

    def refuse(what: str) -> LegatoError:
        who = f" by {user}" if user else ""
        instead = (
            f"algorithms that support it: {', '.join(supporters)}" if supporters else "no algorithm supports it yet"
        )
        return LegatoError(f"{what} of '{name}' are not supported{who}; {instead}")

    observation, action = environment.observation_space, environment.action_space
    if not isinstance(observation, spaces.Box):
        what = f"{type(observation).__name__.lower()} observations of '{name}' are not supported"
        raise LegatoError(f"{what}; wrap it in gymnasium.wrappers.FlattenObservation, in a function that makes it")
    size = int(np.prod(observation.shape))
    if discrete and isinstance(action, spaces.Discrete):
        return Spec.discrete(size, int(action.n))
    if isinstance(action, spaces.Discrete) and choosers:
        able = f"from logs (--dataset) {', '.join(choosers)} learn them"
        raise LegatoError(f"discrete actions of '{name}' are not supported by {user}; {able}")
    if not isinstance(action, spaces.Box):
        raise refuse(f"{type(action).__name__.lower()} actions")
    if len(action.shape) != 1:
        raise refuse(f"actions of shape {action.shape}")
    if not np.issubdtype(action.dtype, np.floating):
        raise refuse(f"actions of type {action.dtype}")
    low, high = action.low.astype(float), action.high.astype(float)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        bad = int(np.flatnonzero(~(np.isfinite(low) & np.isfinite(high)))[0])
        raise LegatoError(
            f"action[{bad}] of '{name}' has no finite bounds ({low[bad]} to {high[bad]}); "
            "give its Box finite limits, or wrap it in gymnasium.wrappers.TransformAction with a finite Box"
        )
    if size < 1 or not len(low):
        raise refuse(f"{'observations' if size < 1 else 'actions'} of no numbers")
    if (far := np.maximum(np.abs(low), np.abs(high)) > UNBOUNDED).any():
        bad = int(far.argmax())
        raise LegatoError(
            f"action[{bad}] of '{name}' is bounded by {low[bad]:g} and {high[bad]:g}, beyond {UNBOUNDED:g}, which "
            "is no bound: give its Box the limits that are meant"
        )
    return Spec(size, tuple(low.tolist()), tuple(high.tolist()))


class Environments(Protocol):
    """Several copies of one environment. `index` picks which of them a call concerns."""

    name: str
    count: int
    episode_limit: int | None
    step_seconds: float | None  # duration of a primitive step, where the environment tells
    seeded: bool  # does reset honour its seed, so that an episode can be replayed?

    def reset(self, index: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Observations `[len(index), obs]` of new episodes, each from its own seed."""
        ...

    def step(self, index: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """`(observations, rewards, terminated, truncated)` of the members in `index` after their `actions`."""
        ...

    def close(self) -> None:
        """Close all of them."""
        ...


class GymnasiumEnvironments:
    """A plain list of Gymnasium environments."""

    seeded = True

    def __init__(self, name: str, members: Sequence[Any]):
        self.name = name
        self.members = list(members)
        self.count = len(self.members)
        first = self.members[0]
        self.episode_limit = episode_limit(first)
        self.step_seconds = seconds_per_step(first)
        self._action: Any = first.action_space
        self.start = int(self._action.start) if isinstance(self._action, spaces.Discrete) else 0  # of choices

    def reset(self, index: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        return np.stack([self.members[i].reset(seed=int(seed))[0] for i, seed in zip(index, seeds, strict=True)])

    def step(self, index: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        if isinstance(self._action, spaces.Discrete):  # a vector of one number, counted from 0
            actions = self._action.start + np.rint(actions[:, 0]).astype(self._action.dtype)
        else:  # rounded to its type first: bounds of another type lie elsewhere by a rounding
            actions = np.clip(actions.astype(self._action.dtype), self._action.low, self._action.high)
        results = [self.members[i].step(action)[:4] for i, action in zip(index, actions, strict=True)]
        observations, rewards, terminated, truncated = zip(*results, strict=True)
        return (
            np.stack(observations),
            np.array(rewards, np.float32),
            np.array(terminated),
            np.array(truncated),
        )

    def close(self) -> None:
        for member in self.members:
            member.close()


def episode_limit(environment: Any) -> int | None:
    """Primitive steps after which an environment truncates its episodes; None where nothing says so."""
    limits = [getattr(environment.spec, "max_episode_steps", None)]
    while isinstance(environment, gymnasium.Wrapper):
        if isinstance(environment, gymnasium.wrappers.TimeLimit):
            limits.append(environment._max_episode_steps)
        environment = environment.env
    known = [limit for limit in limits if limit is not None]
    return min(known) if known else None


def try_environment(environment: Any, name: str) -> None:
    """Begin an episode and make one step of it, by the middle action, and close the environment.

    Raises `LegatoError` for what `Checked` refuses, and for an environment of an older interface.
    """
    space = environment.action_space
    try:
        environment.reset(seed=0)
        if isinstance(space, spaces.Discrete):
            environment.step(space.start)
        elif isinstance(space, spaces.Box):
            environment.step(((space.low.astype(float) + space.high) / 2).astype(space.dtype))
    except LegatoError:
        raise
    except Exception as problem:
        if isinstance(problem, TypeError) and "seed" in str(problem):
            raise LegatoError(
                f"environment '{name}' is of an older interface: its reset takes no seed; Gymnasium's is "
                "reset(self, *, seed=None, options=None)"
            ) from problem
        if isinstance(problem, ValueError) and "unpack" in str(problem):
            raise LegatoError(
                f"environment '{name}' is of an older interface: Gymnasium's step returns (observation, reward, "
                "terminated, truncated, info)"
            ) from problem
        raise LegatoError(f"environment '{name}' failed in its first step: {_worded(problem)}") from problem
    finally:
        environment.close()


def seconds_per_step(environment: Any) -> float | None:
    """The duration of one primitive step in seconds, where the environment knows it.

    That is an attribute `dt` (MuJoCo's tasks and Pendulum have it), and frames per second for Box2D's; elsewhere these
    say how fast a film runs.
    """
    inner = environment.unwrapped
    dt = getattr(inner, "dt", None)
    if isinstance(dt, Real) and not isinstance(dt, bool) and 0 < float(dt) < np.inf:
        return float(dt)
    fps = environment.metadata.get("render_fps")
    return 1.0 / fps if fps and type(inner).__module__.startswith("gymnasium.envs.box2d") else None
