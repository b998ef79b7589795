"""`legato train`: an algorithm on an environment or on logged episodes, or the rest of a stopped run."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

from legato.algorithms import entries, entry
from legato.cli import listing, parsing
from legato.cli.options import EnvOption, values
from legato.errors import LegatoError, plain, unknown
from legato.training.settings import PRESETS, preset

HELP = """usage: legato train ALGORITHM --env ENVIRONMENT [--preset PRESET] [options]
       legato train ALGORITHM --dataset LOGS [--env ENVIRONMENT] [options]
       legato train --resume RUN [--steps N | --updates N] [--from-step STEP]
                    [--env ENVIRONMENT] [--dataset LOGS] [--fresh-episodes]

algorithms that learn by acting:
{online}

algorithms that learn from logged episodes (.npz, .hdf5, Minari ids), with an
environment only to be measured in:
{offline}

presets:
{presets}

'legato train ALGORITHM --help' lists every option with its unit, default and
range; [SRL] and the like name the paper that an option or a value is from.
examples:
  legato train srl --env Pendulum-v1 --horizon 8
  legato train srl --env Hopper-v5 --horizon 4 --preset paper
  legato train sac --env Pendulum-v1 --action-repeat 4 --seeds 4
  legato train dt --dataset my_logs.hdf5 --env Hopper-v5
  legato train bc --dataset D4RL/door/human-v2 --download
  legato train --resume runs/srl-8-Pendulum-v1-0-1
"""

Name = Literal["cpu", "paper"]  # of a preset


@dataclass(frozen=True)
class Resume:
    """Continue a run from its newest checkpoint to its end, or to a later one.

    The numbers are those of a run never stopped.
    """

    resume: str
    """the run folder"""
    from_step: int | None = None
    """an older checkpoint to go back to; newer ones are discarded"""
    steps: int | None = None
    """a later end than the one it was given, of a run that learns by acting"""
    updates: int | None = None
    """a later end than the one it was given, of a run that learns from logs"""
    env: str | None = None
    """the run's environment, named again where a module registers it: no file has a module imported"""
    env_option: EnvOption = ()
    """an option of the run's environment, named again where it may be a path or a module"""
    dataset: str | None = None
    """where the logs that the run learns from are now, if they were moved"""
    fresh_episodes: bool = False
    """leave the unfinished episodes, for an environment that does not repeat itself; numbers differ then"""
    quiet: bool = False
    """show no progress"""


@dataclass(frozen=True)
class Begin:
    """What a new run is told beside hyper-parameters and settings."""

    env_option: EnvOption = ()
    """arguments of the environment's constructor, each with an --env-option of its own"""
    preset: Name = "cpu"
    """where the defaults below come from"""
    out: str | None = None
    """the new run folder; by default the first free runs/ALGORITHM-ENV-SEED-N"""
    quiet: bool = False
    """show no progress"""


def run(args: list[str]) -> None:
    parsing.expect(parsing.of_dataclass(Resume))
    if not args or args[0] in ("-h", "--help"):
        online, offline = (
            listing({name: found.summary for name, found in entries(learns).items()})
            for learns in ("online", "offline")
        )
        print(HELP.format(online=online, offline=offline, presets=listing(PRESETS)), end="")
        return
    if args[0].startswith("--resume"):
        _resume(args)
        return
    if args[0].startswith("-"):
        raise LegatoError("train needs an algorithm first: legato train srl --env Pendulum-v1")
    algorithm, *rest = args
    entry(algorithm)  # or says that there is none
    _train(algorithm, rest)


def _train(algorithm: str, args: list[str]) -> None:
    chosen, env, dataset = _asked(args)
    logged = algorithm in entries("offline")
    if dataset is not None and not logged:
        others = ", ".join(entries("offline"))
        raise LegatoError(f"{algorithm} learns by acting and takes no --dataset; from logs learn {others}")
    config, settings = preset(chosen, algorithm, (dataset or "") if logged else (env or "Pendulum-v1"))
    options = [
        *parsing.of_dataclass(Begin, Begin(preset=chosen)),
        *parsing.of_dataclass(type(config), config),
        *parsing.of_dataclass(type(settings), settings, without=("env_options",)),
    ]
    options = [replace(option, default=None) if option.name == "env" and env is None else option for option in options]
    options.sort(key=lambda option: option.name not in ("env", "dataset"))  # what must be said, first
    given = parsing.parse(options, args, f"legato train {algorithm}", entry(algorithm).summary)
    if logged and dataset is None:
        raise LegatoError(f"which logs? legato train {algorithm} --dataset my_logs.hdf5")
    if not logged and env is None:
        raise LegatoError(f"which environment? legato train {algorithm} --env Pendulum-v1")

    from legato import api

    given |= {"env": env, "env_options": values(given.pop("env_option"))}
    print(plain(api.train(algorithm, **given).place))


def _resume(args: list[str]) -> None:
    given = parsing.parse(parsing.of_dataclass(Resume), args, "legato train", Resume.__doc__ or "")

    from legato import api

    given["env_options"] = values(given.pop("env_option"))
    print(plain(api.train(**{name: value for name, value in given.items() if value is not None}).place))


def _asked(args: Sequence[str]) -> tuple[Name, str | None, str | None]:
    """What `--preset`, `--env` and `--dataset` say; they decide the defaults of all other options."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--preset", default="cpu", nargs="?")
    parser.add_argument("--env", nargs="?")
    parser.add_argument("--dataset", nargs="?")
    known, _ = parser.parse_known_args(args)
    chosen = known.preset or "cpu"  # of none, though it is named, is said where all options are read
    if chosen not in PRESETS:
        raise unknown("preset", chosen, PRESETS)
    return cast(Name, chosen), known.env, known.dataset
