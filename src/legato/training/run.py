"""A run is a folder: what was asked, what was measured, the state to go on from, and the policies that came of it.

config.json      everything that was asked, with versions and git commit
metrics.csv      one row per seed every `log_every` steps
tensorboard/     the same, and speed, as TensorBoard events
checkpoints/     the newest states of the run
policy/seed-S/   `last` and `best`, each loadable alone
figures/, evaluation.json
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from legato.algorithms import entries, entry
from legato.data.spec import Spec
from legato.errors import LegatoError, LegatoWarning, unknown
from legato.training import files
from legato.training.settings import KINDS, AnySettings, OfflineSettings, environment_config

if TYPE_CHECKING:  # brings Gymnasium
    from legato.envs import Env, EnvironmentConfig

Which = Literal["last", "best", "start"]

_DATA = {"environment": str | None, "reference": tuple[float, float] | None, "episodes": int | None}
_DATA |= {"steps": int | None, "fingerprint": str | None, "start": str | None, "path": str | None}


class Run:
    """An existing run folder."""

    def __init__(self, path: str | Path):
        self.path = Path(path).absolute()
        """where it is, whatever the current folder becomes"""
        self.place = str(path)
        """the same as it was given, for people"""
        self.extended: tuple[int, int] | None = None
        """the end that it had and the later one that it was given, until that is kept"""
        file = Path(path) / "config.json"
        _refuse_links(self.path, self.place)
        try:
            body, digests = files.split_digests(files.read_object(file))
            self._read(body)
        except (FileNotFoundError, NotADirectoryError):
            raise LegatoError(f"'{self.place}' is not a run folder: it has no config.json") from None
        except KeyError as problem:
            lacks = f"it lacks {problem}"
            raise LegatoError(f"'{file}' is not what legato wrote ({lacks}); copy it anew") from problem
        except (files.Unfit, TypeError) as problem:
            raise LegatoError(f"'{file}' is not what legato wrote ({problem}); copy it anew") from problem
        if changed := files.changed_parts(body, digests, apart=("versions", "git_commit")):
            parts = " and ".join(changed)
            warnings.warn(LegatoWarning(f"'{file}': its {parts} changed since the run began"), stacklevel=1)

    def _read(self, body: dict[str, Any]) -> None:
        kinds = {"algorithm": str, "preset": str, "method": str | None, "versions": dict | None}
        body = files.object_of({**kinds, "data": dict | None}, body)
        self.algorithm: str = body["algorithm"]
        self.preset: str = body["preset"]
        if self.algorithm not in entries():
            raise files.Unfit(f"there is no algorithm '{self.algorithm}'")
        self.config: Any = files.instance(entry(self.algorithm).config, body["config"], "config")
        self.method: str | None = body.get("method")
        """how its policies were fine-tuned, if they were"""
        if self.method is not None and self.method not in entries("finetuning"):
            raise files.Unfit(f"there is no fine-tuner '{self.method}'")
        learns = entry(self.algorithm).learns if self.method is None else "finetuning"
        self.tuning: Any = None
        if self.method is not None:
            self.tuning = files.instance(entry(self.method, "finetuning").config, body["tuning"], "tuning")
        self.settings: AnySettings = files.instance(KINDS[learns], body["settings"], "settings")
        data = body.get("data")
        self.data: dict[str, Any] | None = None if data is None else files.object_of(_DATA, data, "data")
        self.spec = files.spec(body["spec"])
        self.versions: dict[str, Any] = body.get("versions") or {}

    @classmethod
    def create(
        cls,
        path: str | Path | None,
        algorithm: str,
        preset: str,
        config: Any,
        settings: AnySettings,
        spec: Spec,
        data: dict[str, Any] | None = None,
        *,
        method: str | None = None,
        tuning: Any = None,
    ) -> Run:
        """A new folder, by default the first free `runs/<algorithm>-<environment or dataset>-<seed>-<n>`.

        `data` says what is known of the logs that are learnt from.

        Raises `LegatoError` when `path` exists: nothing is ever overwritten.
        """
        for part, fields in (("hyper-parameters", config), ("settings", settings), ("fine-tuning", tuning)):
            files.check_types(fields, part)
        path = _make_folder(path, label(algorithm, config, method, tuning), settings)
        body = {
            "algorithm": algorithm,
            "preset": preset,
            "config": dataclasses.asdict(config),
            "settings": dataclasses.asdict(settings),
            "spec": dataclasses.asdict(spec),
            "data": data,
            **({"method": method, "tuning": dataclasses.asdict(tuning)} if tuning is not None else {}),
            "versions": versions(),
            "git_commit": _git_commit(),
        }
        write_text(path / "config.json", json.dumps(files.add_digests(body), indent=2) + "\n")
        return cls(path)

    def extend(self, name: Literal["steps", "updates"], end: int | None) -> None:
        """Set a later end, in memory; None leaves the one that it has. `keep_end` writes it to config.json.

        Raises `LegatoError` for an end that is none, or no later than the present one.
        """
        if end is None:
            return
        old = getattr(self.settings, name, None)
        if old is None:
            other = "updates" if name == "steps" else "steps"
            raise LegatoError(f"the end of '{self.place}' is counted in {other}: give `{other}`")
        if isinstance(end, bool) or not isinstance(end, int) or end < old:
            raise LegatoError(
                f"'{self.place}' ends after {old} {name} as it is: a later end is a whole number above {old}"
            )
        if end == old:  # said again, as after a kill
            return
        self.settings = dataclasses.replace(self.settings, **{name: end})
        self.extended = (old, end)

    def keep_end(self) -> None:
        """Note a later end in config.json, beside the one before, and say what it means for annealed step sizes."""
        if self.extended is None:
            return
        old, end = self.extended
        body, digests = files.split_digests(files.read_object(self.path / "config.json"))
        body["settings"] = dataclasses.asdict(self.settings)
        noted = body.get("extended", [])
        body["extended"] = [*(noted if isinstance(noted, list) else []), [old, end]]
        if digests:
            body[files.DIGESTS] = digests | {"settings": files.digest(body["settings"])}
        write_text(self.path / "config.json", json.dumps(body, indent=2) + "\n")
        if getattr(self.config if self.tuning is None else self.tuning, "anneal_over", 0):
            text = (
                f"'{self.place}' goes on with the small step sizes that it came to by {old} (anneal_over): it learns "
            )
            text += "slowly now; a run that is to go on is begun with `anneal_over=0`"
            warnings.warn(LegatoWarning(text), stacklevel=2)

    def mark_fresh_episodes(self, step: int) -> None:
        """Note in config.json that the run went on with fresh episodes from this step on, and say so."""
        body = files.read_object(self.path / "config.json")
        noted = body.get("resumed_with_fresh_episodes", [])
        body["resumed_with_fresh_episodes"] = [*(noted if isinstance(noted, list) else []), step]
        write_text(self.path / "config.json", json.dumps(body, indent=2) + "\n")
        text = f"'{self.place}' goes on with fresh episodes from step {step}: its numbers differ from an unbroken run's"
        warnings.warn(LegatoWarning(text), stacklevel=1)

    @property
    def seeds(self) -> list[int]:
        return [self.settings.seed + i for i in range(self.settings.seeds)]

    def known_seed(self, seed: int | None) -> int:
        """This seed, or the first for None. Raises `LegatoError` for one that the run does not have."""
        seed = self.seeds[0] if seed is None else seed
        if seed not in self.seeds:
            raise LegatoError(f"'{self.place}' has no seed {seed}; it has {', '.join(map(str, self.seeds))}")
        return seed

    @property
    def label(self) -> str:
        return label(self.algorithm, self.config, self.method, self.tuning)

    @property
    def environment(self) -> str | None:
        """Where its policies belong: the environment of its settings, or of its data."""
        return self.settings.env or (self.data or {}).get("environment")

    @property
    def environment_config(self) -> EnvironmentConfig:
        """The same with its options and time limit, which belong to the environment of its settings."""
        from legato.envs import EnvironmentConfig

        return environment_config(self.settings) if self.settings.env else EnvironmentConfig(self.environment or "")

    def confirm(self, env: Env | None, options: Mapping[str, Any] | None = None) -> None:
        """Let the user name the run's environment again, as a module or a function that makes it must be.

        Raises `LegatoError` for another environment or other options than the run's.
        """
        from legato.envs import check_options, resolve_environment

        recorded = self.settings.env
        if env is not None and (name := resolve_environment(env, recorded)) != recorded:
            where = f"in '{recorded}', not in '{name}'" if recorded else "in no environment"
            raise LegatoError(f"'{self.place}' is played {where}: a run keeps its environment")
        options = check_options(options or {})
        if different := {k for k in options if k not in self.settings.env_options}:
            raise LegatoError(f"'{self.place}' has no option {min(different)}: a run keeps its environment")
        for name, value in options.items():
            if value != (kept := self.settings.env_options[name]):
                raise LegatoError(f"'{self.place}' has {name}={kept}, not {value}: a run keeps its environment")

    @property
    def conditioned(self) -> bool:
        """Do its policies read the return that is asked for?"""
        return entry(self.algorithm).command(self.config) == "return"

    @property
    def goals(self) -> bool:
        """Do its policies read a goal?"""
        return entry(self.algorithm).command(self.config) == "goal"

    def resume_command(self, command: str, dataset: str | None = None) -> str:
        """What goes on with it, and what has to be said again: the module of its environment, its dataset's place."""
        words = f"legato {command} --resume {self.place}"
        if ":" in (env := self.settings.env):
            words += f" --env {env}"
        return words if dataset is None else f"{words} --dataset {dataset}"

    def policy_path(self, seed: int | None = None, which: Which = "last") -> Path:
        """The folder of a saved policy, by default of the first seed.

        Raises `LegatoError` for a seed that the run does not have and for a policy that was not saved yet.
        """
        if which not in get_args(Which):
            raise unknown("policy", str(which), get_args(Which))
        seed = self.known_seed(seed)
        path = self.path / "policy" / f"seed-{seed}" / which
        if not path.is_dir():
            raise LegatoError(f"'{self.place}' has no '{which}' policy of seed {seed} yet; was it stopped early?")
        return path

    def versions_changed(self) -> list[str]:
        """Packages whose version differs from the one that the run began with: resuming is then not bit for bit."""
        return [f"{k} {v} -> {versions().get(k)}" for k, v in self.versions.items() if versions().get(k) != v]


def label(algorithm: str, config: Any, method: str | None = None, tuning: Any = None) -> str:
    """The field's name for a configuration: `SRL-8`, `SAC`, `SAC-4`, `10%BC`, `DT (cache)`, `DS4-AC`."""
    found = entry(algorithm)
    if method is None:
        return found.label(config)
    details = found.details(config)
    title = entry(method, "finetuning").label(tuning)
    return f"{title} ({', '.join(details)})" if details else title


def versions() -> dict[str, str]:
    """The versions that results depend on."""
    packages = ("legato", "jax", "jaxlib", "equinox", "optax", "numpy", "gymnasium", "mujoco", "envpool")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write_text(path: Path, text: str) -> None:
    """Replace a file as a whole."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("x") as file:  # never through a link that lies there
            file.write(text)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _refuse_links(folder: Path, place: str) -> None:
    """A run is written to as well as read, and what is written must not land elsewhere.

    Raises `LegatoError` for a link in a run that leads out of it. The run's folder may be one itself.
    """
    within = os.path.realpath(folder)
    for parent, folders, names in os.walk(within):
        for name in (*folders, *names):
            path = os.path.join(parent, name)
            if os.path.islink(path) and not os.path.realpath(path).startswith(within + os.sep):
                raise LegatoError(
                    f"'{os.path.join(place, os.path.relpath(path, within))}' is a link that leads out of the run: "
                    "put the file or folder itself there"
                )


def _make_folder(path: str | Path | None, name: str, settings: AnySettings) -> Path:
    """The new folder. Which is free is found out by making it: another process may be looking for one too."""
    where = settings.dataset if isinstance(settings, OfflineSettings) else settings.env
    where = re.sub(r"[^\w.-]+", "_", where)[-60:].strip("_.")
    name = re.sub(r"[^\w]+", "-", name.lower()).strip("-")
    n = 1
    while True:
        found = Path("runs") / f"{name}-{where}-{settings.seed}-{n}" if path is None else Path(path)
        try:
            found.mkdir(parents=True)
            return found
        except FileExistsError:
            if path is not None:
                raise LegatoError(
                    f"'{found}' exists and is not overwritten; choose another `out`, or continue it with "
                    f"`resume={found}`"
                ) from None
            n += 1
        except OSError as problem:
            raise LegatoError(f"cannot create '{found}': {problem.strerror}") from problem


def _git_commit() -> str | None:
    try:
        command = ["git", "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
