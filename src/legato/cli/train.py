"""`legato train`: an algorithm on an environment or on logged episodes, or the rest of a stopped run."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import tyro

from legato.algorithms import entries, entry
from legato.cli.options import EnvOption, values
from legato.errors import LegatoError, plain, unknown
from legato.options import hints, refuse_old_names
from legato.training.settings import PRESETS, preset

HELP = """usage: legato train ALGORITHM --env ENVIRONMENT [--preset PRESET] [options]
       legato train ALGORITHM --dataset LOGS [--env ENVIRONMENT] [options]
       legato train --resume RUN [--steps N | --updates N] [--from-step STEP]
                    [--env ENVIRONMENT] [--dataset LOGS] [--fresh-episodes]

algorithms that learn by acting:
{online}

algorithms that learn from logged episodes (.npz, .hdf5, Minari ids), with an environment only to be measured in:
{offline}

presets:
{presets}

'legato train ALGORITHM --help' lists every option with its unit, source and default.
examples:
  legato train srl --env Pendulum-v1 --horizon 8
  legato train srl --env Hopper-v5 --horizon 4 --preset paper
  legato train sac --env Pendulum-v1 --action-repeat 4 --seeds 4
  legato train dt --dataset my_logs.hdf5 --env Hopper-v5
  legato train bc --dataset D4RL/door/human-v2 --download
  legato train --resume runs/srl-8-Pendulum-v1-0-1
"""


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


def run(args: list[str]) -> None:
    if not args or args[0] in ("-h", "--help"):
        online, offline = (
            _listing({name: found.summary for name, found in entries(learns).items()})
            for learns in ("online", "offline")
        )
        print(HELP.format(online=online, offline=offline, presets=_listing(PRESETS)), end="")
        return
    if args[0].startswith("--resume"):
        _resume(tyro.cli(Resume, args=args, prog="legato train"))
        return
    if args[0].startswith("-"):
        raise LegatoError("train needs an algorithm first: legato train srl --env Pendulum-v1")
    algorithm, *rest = args
    entry(algorithm)  # or says that there is none
    _train(algorithm, rest)


def _train(algorithm: str, args: list[str]) -> None:
    chosen, env, dataset = _world(args)
    logged = algorithm in entries("offline")
    defaults, schedule = preset(chosen, algorithm, (dataset or "") if logged else (env or "Pendulum-v1"))

    refuse_old_names(args, {*hints(type(defaults)), *hints(type(schedule))})

    @dataclass(frozen=True)
    class Options:
        config: Annotated[type(defaults), tyro.conf.arg(name="")]  # type: ignore[valid-type]
        settings: Annotated[type(schedule), tyro.conf.arg(name="")]  # type: ignore[valid-type]
        env_option: EnvOption = ()
        """arguments of the environment's constructor, each with an --env-option of its own"""
        preset: Literal["cpu", "paper"] = "cpu"
        """where the defaults below come from"""
        out: str | None = None
        """the new run folder; by default the first free runs/ALGORITHM-ENV-SEED-N"""
        quiet: bool = False
        """show no progress"""

    options = tyro.cli(
        Options,
        args=args,
        default=Options(defaults, schedule, preset=chosen),  # type: ignore[arg-type]
        prog=f"legato train {algorithm}",
        description=(type(defaults).__doc__ or "").strip(),
    )
    if logged and dataset is None:
        raise LegatoError(f"which logs? legato train {algorithm} --dataset my_logs.hdf5")
    if not logged and env is None:
        raise LegatoError(f"which environment? legato train {algorithm} --env Pendulum-v1")

    from legato.envs import check_options, resolve_environment
    from legato.training import offline, online

    settings = options.settings
    if env is not None:
        settings = replace(settings, env=resolve_environment(settings.env))
    if options.env_option:
        settings = replace(settings, env_options=check_options(values(options.env_option)))
    start = offline.start if logged else online.start
    run = start(algorithm, options.preset, options.config, settings, options.out, quiet=options.quiet)
    print(plain(run.place))


def _resume(options: Resume) -> None:
    from legato.training import offline, online
    from legato.training.run import Run

    stopped = Run(options.resume)
    if stopped.method is not None:
        raise LegatoError(f"'{options.resume}' is a fine-tuning: legato finetune --resume {options.resume}")
    stopped.confirm(options.env, values(options.env_option))
    common = {"from_step": options.from_step, "quiet": options.quiet}
    if stopped.algorithm in entries("offline"):
        if options.fresh_episodes:
            raise LegatoError(f"'{options.resume}' learns from logs and plays no episodes: leave out --fresh-episodes")
        stopped.extend("steps", options.steps)  # to say that these are counted in updates
        run = offline.resume(options.resume, updates=options.updates, dataset=options.dataset, **common)
    else:
        if options.dataset is not None:
            raise LegatoError(f"'{options.resume}' learns by acting, not from logs: leave out --dataset")
        stopped.extend("updates", options.updates)  # to say that these are counted in steps
        run = online.resume(options.resume, steps=options.steps, fresh_episodes=options.fresh_episodes, **common)
    print(plain(run.place))


def _world(args: Sequence[str]) -> tuple[str, str | None, str | None]:
    """What `--preset`, `--env` and `--dataset` say; they decide the defaults of all other options."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--preset", default="cpu", nargs="?")
    parser.add_argument("--env", nargs="?")
    parser.add_argument("--dataset", nargs="?")
    known, _ = parser.parse_known_args(args)
    if known.preset not in PRESETS:
        raise unknown("preset", str(known.preset), PRESETS)
    return known.preset, known.env, known.dataset


def _listing(texts: dict[str, str]) -> str:
    return "\n".join(f"  {name:<8} {text}" for name, text in texts.items())
