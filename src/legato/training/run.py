"""A run is a folder: what was asked, what was measured, the state to go on from, and the policies that came of it.

config.json      everything that was asked, with versions and git commit
metrics.csv      one row per seed every `log_every` steps
tensorboard/     the same, and speed, as TensorBoard events
checkpoints/     the newest states of the run
policy/seed-S/   `last` and `best`, each loadable alone
figures/, evaluation.json
"""

from __future__ import annotations

import csv
import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from legato.algorithms.configs import BC, CONFIGS, DS4, DT, OFFLINE, SAC, SRL, TT, TUNERS, Config, Tuner, read_config
from legato.data.spec import Spec
from legato.errors import LegatoError
from legato.training.settings import AnySettings, FinetuneSettings, OfflineSettings, Settings, world_of

if TYPE_CHECKING:  # brings Gymnasium
    from legato.envs import Env, World

Which = Literal["last", "best", "start"]


class Run:
    """An existing run folder."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            body = json.loads((self.path / "config.json").read_text())
            self.algorithm: str = body["algorithm"]
            self.preset: str = body["preset"]
            self.config: Config = read_config(CONFIGS[self.algorithm], body["config"])
            self.method: str | None = body.get("method")
            """how its policies were fine-tuned, if they were"""
            self.tuning: Tuner | None = read_config(TUNERS[self.method], body["tuning"]) if self.method else None
            kind = OfflineSettings if self.algorithm in OFFLINE else Settings
            kind = FinetuneSettings if self.method else kind
            self.settings: AnySettings = kind(**_tuples(body["settings"]))
            self.data: dict[str, Any] | None = body.get("data")
            self.spec = Spec(**_tuples(body["spec"]))
        except (FileNotFoundError, NotADirectoryError):
            raise LegatoError(f"'{self.path}' is not a run folder: it has no config.json") from None
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as problem:
            raise LegatoError(f"'{self.path}/config.json' is not what legato wrote ({problem})") from problem

    @classmethod
    def create(
        cls,
        path: str | Path | None,
        algorithm: str,
        preset: str,
        config: Config,
        settings: AnySettings,
        spec: Spec,
        data: dict[str, Any] | None = None,
        *,
        method: str | None = None,
        tuning: Tuner | None = None,
    ) -> Run:
        """A new folder, by default the first free `runs/<algorithm>-<environment or dataset>-<seed>-<n>`.

        `data` says what is known of the logs that are learnt from.

        Raises `LegatoError` when `path` exists: nothing is ever overwritten.
        """
        path = Path(path) if path is not None else _free_path(label(algorithm, config, method), settings)
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            raise LegatoError(
                f"'{path}' exists and is not overwritten; choose another --out, or continue it with --resume {path}"
            ) from None
        except OSError as problem:
            raise LegatoError(f"cannot create '{path}': {problem.strerror}") from problem
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
        write_text(path / "config.json", json.dumps(body, indent=2) + "\n")
        return cls(path)

    @property
    def seeds(self) -> list[int]:
        return [self.settings.seed + i for i in range(self.settings.seeds)]

    def known_seed(self, seed: int | None) -> int:
        """This seed, or the first for None. Raises `LegatoError` for one that the run does not have."""
        seed = self.seeds[0] if seed is None else seed
        if seed not in self.seeds:
            raise LegatoError(f"'{self.path}' has no seed {seed}; it has {', '.join(map(str, self.seeds))}")
        return seed

    @property
    def label(self) -> str:
        return label(self.algorithm, self.config, self.method)

    @property
    def environment(self) -> str | None:
        """Where its policies belong: the environment of its settings, or of its data."""
        return self.settings.env or (self.data or {}).get("environment")

    @property
    def world(self) -> World:
        """The same with its options and time limit, which belong to the environment of its settings."""
        from legato.envs import World

        return world_of(self.settings) if self.settings.env else World(self.environment or "")

    def confirm(self, env: Env | None, options: Mapping[str, Any] | None = None) -> None:
        """Let the user name the run's environment again, as a module or a function that makes it must be.

        Raises `LegatoError` for another environment or other options than the run's.
        """
        from legato.envs import given, named

        recorded = self.settings.env
        if env is not None and (name := named(env, recorded)) != recorded:
            where = f"in '{recorded}', not in '{name}'" if recorded else "in no environment"
            raise LegatoError(f"'{self.path}' is played {where}: a run keeps its environment")
        options = given(options or {})
        if different := {k for k in options if k not in self.settings.env_options}:
            raise LegatoError(f"'{self.path}' has no option {min(different)}: a run keeps its environment")
        for name, value in options.items():
            if value != (kept := self.settings.env_options[name]):
                raise LegatoError(f"'{self.path}' has {name}={kept}, not {value}: a run keeps its environment")

    @property
    def conditioned(self) -> bool:
        """Do its policies read the return that is asked for?"""
        return isinstance(self.config, DT | DS4) and self.config.returns

    @property
    def goals(self) -> bool:
        """Are its policies told a goal?"""
        return isinstance(self.config, TT) and self.config.goals != "none"

    def policy_path(self, seed: int | None = None, which: Which = "last") -> Path:
        """The folder of a saved policy, by default of the first seed.

        Raises `LegatoError` for a seed that the run does not have and for a policy that was not saved yet.
        """
        seed = self.known_seed(seed)
        path = self.path / "policy" / f"seed-{seed}" / which
        if not path.is_dir():
            raise LegatoError(f"'{self.path}' has no '{which}' policy of seed {seed} yet; was it stopped early?")
        return path

    def versions_changed(self) -> list[str]:
        """Packages whose version differs from the one that the run began with: resuming is then not bit for bit."""
        body = json.loads((self.path / "config.json").read_text())
        return [f"{k} {v} -> {versions().get(k)}" for k, v in body["versions"].items() if versions().get(k) != v]


def label(algorithm: str, config: Config, method: str | None = None) -> str:
    """The field's name for a configuration: `SRL-8`, `SAC`, `SAC-4`, `10%BC`, `DT (cache)`, `DS4-AC`."""
    name = (method or algorithm).upper()
    if isinstance(config, SRL):
        return f"SRL-{config.horizon}"
    if isinstance(config, SAC):
        return name if config.action_repeat == 1 else f"{name}-{config.action_repeat}"
    if isinstance(config, BC):
        return name if config.fraction == 1 else f"{100 * config.fraction:g}%BC"
    if isinstance(config, TT):
        said = ["uniform"] if config.edges == "uniform" else []
        said += [config.search] if config.search != "return" else []
        return f"{name} ({', '.join(said)})" if said else name
    said = ["cache"] if isinstance(config, DT) and config.memory == "cache" else []
    said += [f"no {what}" for what in ("returns", "history") if not getattr(config, what, True)]
    return f"{name} ({', '.join(said)})" if said else name


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
    temporary = path.with_name(path.name + ".writing")
    temporary.write_text(text)
    os.replace(temporary, path)


class Metrics:
    """`metrics.csv` and TensorBoard events. Clock times go to TensorBoard only, so that equal runs have equal files."""

    def __init__(self, run: Run, columns: list[str], resume_at: int | None = None):
        from tensorboardX import SummaryWriter

        self.path = run.path / "metrics.csv"
        self.columns = ["step", "seed", *columns]
        if resume_at is None:
            write_text(self.path, ",".join(self.columns) + "\n")
        else:
            rows = list(csv.reader(self.path.read_text().splitlines()))
            kept = [
                rows[0],
                *(row for row in rows[1:] if len(row) == len(rows[0]) and int(row[0]) <= resume_at),
            ]
            write_text(self.path, "".join(",".join(row) + "\n" for row in kept))
        self.file = self.path.open("a")
        self.events = SummaryWriter(str(run.path / "tensorboard"), purge_step=resume_at)

    def write(self, step: int, seed: int, values: dict[str, float]) -> None:
        """One row. Columns without a value stay empty; values are written so that they read back bit for bit."""
        row = {"step": step, "seed": seed, **values}
        self.file.write(",".join(repr(row[c]) if c in row else "" for c in self.columns) + "\n")
        self.file.flush()
        for name, value in values.items():
            self.events.add_scalar(f"seed-{seed}/{name}", value, step)

    def speed(self, step: int, per_second: float, what: str = "steps") -> None:
        self.events.add_scalar(f"speed/{what}_per_second", per_second, step)

    def close(self) -> None:
        self.file.close()
        self.events.close()


def _free_path(name: str, settings: AnySettings) -> Path:
    where = settings.dataset if isinstance(settings, OfflineSettings) else settings.env
    where = re.sub(r"[^\w.-]+", "_", where)[-60:].strip("_.")
    name = re.sub(r"[^\w]+", "-", name.lower()).strip("-")
    n = 1
    while (path := Path("runs") / f"{name}-{where}-{settings.seed}-{n}").exists():
        n += 1
    return path


def _git_commit() -> str | None:
    try:
        command = ["git", "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
