"""Environments by name: what a user may ask for, and how it is made."""

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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium import error

from legato.envs.checked import Checked
from legato.envs.failures import in_one_line, missing_package
from legato.errors import LegatoError, unknown


def known_ids() -> list[str]:
    """Every registered Gymnasium id, newest versions included, sorted."""
    return sorted(str(name) for name in gymnasium.registry)


# Families that Gymnasium-Robotics registers when it is imported, which takes a second.
_ROBOTICS = ("Adroit", "AntMaze", "Fetch", "FrankaKitchen", "HandManipulate", "HandReach", "PointMaze")


@dataclass(frozen=True)
class EnvironmentConfig:
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
                raise missing_package(env, problem) from problem
            except Exception as problem:  # whatever a user's module does
                raise LegatoError(
                    f"environment '{env}': importing '{module}' failed: {in_one_line(problem)}"
                ) from problem
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
            instead = "`max_episode_steps`" if name == "max_episode_steps" else "the `out` of play"
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


def make(asked: str | EnvironmentConfig, **kwargs: Any) -> Any:
    """One environment, wrapped in `Checked`.

    No module is imported that the environment's name brings along: names come from files as well, and those of
    strangers are data. A `module:Id` is made where its module is loaded, which `resolve_environment` does for a user;
    entry points and arguments are those of Gymnasium's registry.

    Raises `LegatoError` for an unknown id (naming the nearest), a module that nobody named, a missing optional
    dependency (naming the extra), and whatever its constructor raises.
    """
    config = EnvironmentConfig(asked) if isinstance(asked, str) else asked
    name = config.name
    if reserved := sorted(RESERVED & set(config.options)):
        raise LegatoError(f"'{reserved[0]}' is no option of the environment '{name}'")
    for option, value in config.options.items():
        if not _harmless(value) and _option(option, value) not in _given:
            raise LegatoError(
                f"option {option}={value!r} of '{name}' may name a file or a module, and a file asks for it: pass "
                f"`env_options` {option}={value} yourself"
            )
    with warnings.catch_warnings(), _quiet_mujoco(name):
        warnings.simplefilter("ignore")  # 'v4 is out of date': the caller chose the version
        try:
            environment = _made(config, {**config.options, **kwargs})
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
            raise missing_package(name, problem) from problem
        except error.Error as problem:
            raise LegatoError(f"environment '{name}': {' '.join(str(problem).split())}") from problem
        except Exception as problem:  # whatever a constructor does
            advice = "; give its arguments with `env_options`" if "argument" in str(problem) else ""
            raise LegatoError(f"environment '{name}' could not be made: {in_one_line(problem)}{advice}") from problem
    return Checked(environment, name)


def _made(config: EnvironmentConfig, options: dict[str, Any]) -> gymnasium.Env:
    limit = config.max_episode_steps
    if config.name in _factories:
        environment = _factories[config.name](**options)
        if not isinstance(environment, gymnasium.Env):
            what = type(environment).__name__
            raise LegatoError(f"environment '{config.name}': its function returned {what}, no gymnasium.Env")
        return environment if limit is None else gymnasium.wrappers.TimeLimit(environment, limit)
    module, colon, name = config.name.partition(":")
    name = name if colon else module
    if colon and (module not in sys.modules or _registered(name) is None):
        function = "" if re.search(r"-v\d+$", name) else ", or where a function makes it, env=that function,"
        raise LegatoError(
            f"environment '{config.name}' is not made: its module is imported only when you name it yourself: pass "
            f"`env={config.name}`{function} if you trust it"
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
