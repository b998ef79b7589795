"""`legato finetune`: policies from logs go on learning by acting, or the rest of a stopped fine-tuning."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import tyro

from legato.algorithms import entries, entry, finetuners_of
from legato.cli.options import EnvOption, values
from legato.errors import LegatoError, plain
from legato.options import hints, refuse_old_names
from legato.training.settings import PRESETS, from_scratch, tuning_preset

HELP = """usage: legato finetune RUN [--env ENVIRONMENT] [--method METHOD] [--preset PRESET] [options]
       legato finetune ALGORITHM --env ENVIRONMENT --target RETURN [options]
       legato finetune --resume RUN [--from-step STEP] [--fresh-episodes]

Lets the policies of a run that learnt from logs go on learning by acting, in a run folder of its own. The offline
policies are never touched: the new run carries a copy of them (start), the newest (last) and the best, which is never
worse than the copy by the run's own evaluations. A fall below the offline return is said, and with --rollback undone.
With the name of an algorithm ({algorithms}) in the place of a run its policies begin from scratch.

methods:
{methods}

presets:
{presets}

'legato finetune RUN --help' lists every option with its unit, source and default.
examples:
  legato finetune runs/ds4-bench_hopper_medium-v0-0-1 --env Hopper-v4
  legato finetune runs/ds4-bench_hopper_medium-v0-0-1 --steps 20000 --rollback
  legato finetune ds4 --env Pendulum-v1 --target -150 --steps 15000
  legato finetune ds4 --env Pendulum-v1 --target -150 --base channels=32 layers=1
  legato finetune --resume runs/ds4-ac-Hopper-v4-0-1
"""


@dataclass(frozen=True)
class Resume:
    """Continue a fine-tuning from its newest checkpoint to its end, or to a later one.

    The numbers are those of a run never stopped.
    """

    resume: str
    """the run folder"""
    from_step: int | None = None
    """an older checkpoint to go back to; newer ones are discarded"""
    steps: int | None = None
    """a later end than the one it was given"""
    env: str | None = None
    """the run's environment, named again where a module registers it: no file has a module imported"""
    env_option: EnvOption = ()
    """an option of the run's environment, named again where it may be a path or a module"""
    fresh_episodes: bool = False
    """leave the unfinished episodes, for an environment that does not repeat itself; numbers differ then"""
    quiet: bool = False
    """show no progress"""


def run(args: list[str]) -> None:
    if not args or args[0] in ("-h", "--help"):
        methods = [f"  {name:<8} {found.summary}" for name, found in entries("finetuning").items()]
        presets = [f"  {name:<8} {text}" for name, text in PRESETS.items()]
        algorithms = ", ".join(name for name in entries() if finetuners_of(name))
        print(HELP.format(methods="\n".join(methods), presets="\n".join(presets), algorithms=algorithms), end="")
    elif args[0].startswith("--resume"):
        _resume(tyro.cli(Resume, args=args, prog="legato finetune"))
    elif args[0].startswith("-"):
        raise LegatoError("finetune needs a run first: legato finetune runs/ds4-... --env Hopper-v4")
    else:
        _finetune(args[0], args[1:])


def _finetune(source: str, args: list[str]) -> None:
    preset, method, env = _asked(args)
    scratch = from_scratch(source)
    algorithm, known, seeds = (source, None, [0]) if scratch else _source(source)
    inherited = {} if scratch or (env or known) != known else _inherited(source)
    method = method or next(iter(finetuners_of(algorithm)), None)
    if method not in finetuners_of(algorithm):
        from legato.training.run import Run
        from legato.training.starting_point import choose_method

        choose_method(source if scratch else Run(source), method)  # says what is wrong
        raise AssertionError(method)
    chosen: str = method
    defaults, schedule = tuning_preset(preset, chosen, env or known or "", scratch=scratch)
    schedule = replace(schedule, seed=seeds[0], seeds=len(seeds), **inherited)

    refuse_old_names(args, {*hints(type(defaults)), *hints(type(schedule))})

    @dataclass(frozen=True)
    class Options:
        tuning: Annotated[type(defaults), tyro.conf.arg(name="")]  # type: ignore[valid-type]
        settings: Annotated[type(schedule), tyro.conf.arg(name="")]  # type: ignore[valid-type]
        env_option: EnvOption = ()
        """arguments of the environment's constructor, each with an --env-option of its own"""
        method: str = ""
        """how: one of those that 'legato finetune --help' lists for the run's algorithm"""
        preset: Literal["cpu", "paper"] = "cpu"
        """where the defaults below come from"""
        base: tuple[str, ...] = ()
        """of an algorithm in the place of a run, its own hyper-parameters where they are not the preset's,
        as 'legato train ALGORITHM --help' lists them: channels=32 layers=1"""
        out: str | None = None
        """the new run folder; by default the first free runs/METHOD-ENV-SEED-N"""
        dataset: str | None = None
        """where the logs that the run learnt from are now, if they were moved and are read again"""
        quiet: bool = False
        """show no progress"""

    options: Any = tyro.cli(
        Options,
        args=args,
        default=Options(defaults, schedule, method=chosen, preset=preset),  # type: ignore[arg-type]
        prog=f"legato finetune {source}",
        description=(type(defaults).__doc__ or "").strip(),
    )
    from legato import api
    from legato.envs import check_options, resolve_environment
    from legato.training import finetune

    settings = options.settings
    if env is not None:
        settings = replace(settings, env=resolve_environment(settings.env))
    if options.env_option:
        settings = replace(settings, env_options={**settings.env_options, **check_options(values(options.env_option))})
    how = {"base": _base(algorithm, options.base), "quiet": options.quiet, "dataset": options.dataset}
    made = finetune.start(source, chosen, options.preset, options.tuning, settings, options.out, **how)
    print(plain(api.drawn(made).place))


def _base(algorithm: str, pairs: Sequence[str]) -> dict[str, Any]:
    """Hyper-parameters as they were typed. Raises `LegatoError` for what is none."""
    known, found = entry(algorithm).config(), {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise LegatoError(f"'{pair}' names no hyper-parameter of {algorithm}; write such as layers=1")
        kind = type(getattr(known, name, value))
        try:
            found[name] = {"true": True, "false": False}.get(value.lower(), value) if kind is bool else kind(value)
        except ValueError:
            number = "a whole number" if kind is int else "a number"
            raise LegatoError(f"{name} is {number}; '{value}' was given") from None
    return found


def _resume(options: Resume) -> None:
    from legato import api
    from legato.training import finetune
    from legato.training.run import Run

    stopped = Run(options.resume)
    if stopped.method is None:
        raise LegatoError(f"'{options.resume}' is no fine-tuning: legato train --resume {options.resume}")
    stopped.confirm(options.env, values(options.env_option))
    how = {"steps": options.steps, "quiet": options.quiet, "fresh_episodes": options.fresh_episodes}
    print(plain(api.drawn(finetune.resume(options.resume, options.from_step, **how)).place))


def _source(source: str) -> tuple[str, str | None, list[int]]:
    """Algorithm, environment and seeds of a run, without JAX. Raises `LegatoError` for what is no run."""
    from legato.training.run import Run

    run = Run(source)
    return run.algorithm, run.environment, run.seeds


def _inherited(source: str) -> dict[str, Any]:
    """Options and time limit of the run's own environment."""
    from legato.training.run import Run

    settings = Run(source).settings
    return {"env_options": settings.env_options, "max_episode_steps": settings.max_episode_steps}


def _asked(args: Sequence[str]) -> tuple[str, str | None, str | None]:
    """What `--preset`, `--method` and `--env` say; they decide the defaults of all other options."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("--preset", "--method", "--env"):
        parser.add_argument(name, nargs="?")
    known, _ = parser.parse_known_args(args)
    return known.preset or "cpu", known.method, known.env
