"""`legato finetune`: policies from logs are fine-tuned by acting, or a stopped fine-tuning is resumed."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from legato.algorithms import entries, entry, finetuners_of
from legato.cli import listing, parsing
from legato.cli.options import EnvOption, values
from legato.errors import LegatoError, plain
from legato.training.finetuning_defaults import choose_method, finetuning_defaults
from legato.training.run import Run
from legato.training.settings import PRESETS, FinetuneSettings, from_scratch

HELP = """usage: legato finetune RUN [--env ENVIRONMENT] [--method METHOD] [options]
       legato finetune ALGORITHM --env ENVIRONMENT --target RETURN [options]
       legato finetune --resume RUN [--from-step STEP] [--fresh-episodes]

Fine-tunes the policies of a run that learnt from logs by acting, in a run
folder of its own. The offline policies are never touched: the new run carries
a copy of them (start), the newest (last) and the best, which is never worse
than the copy by the run's own evaluations. A fall below the offline return is
reported, and with --rollback undone, as the preset cpu has it. With the name of
an algorithm ({algorithms}) in the place of a run its policies begin from
scratch.

methods:
{methods}

presets:
{presets}

'legato finetune RUN --help' lists every option with its unit, its range and its
default for this run; 'legato finetune ds4 --help' for beginning from scratch.
examples:
  legato finetune runs/ds4-bench_hopper_medium-v0-0-1 --env Hopper-v4
  legato finetune runs/ds4-bench_hopper_medium-v0-0-1 --steps 20000
  legato finetune ds4 --env Pendulum-v1 --target -150 --steps 15000
  legato finetune ds4 --env Pendulum-v1 --target -150 --base channels=32
  legato finetune --resume runs/ds4-ac-Hopper-v4-0-1
"""

Name = Literal["cpu", "paper"]  # of a preset


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


@dataclass(frozen=True)
class Begin:
    """What a new fine-tuning is told beside hyper-parameters and settings."""

    env_option: EnvOption = ()
    """arguments of the environment's constructor, each with an --env-option of its own"""
    method: str = ""
    """how: one of those that 'legato finetune --help' lists for the run's algorithm"""
    preset: Name = "cpu"
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


def run(args: list[str]) -> None:
    parsing.expect(parsing.of_dataclass(Resume))
    if not args or args[0] in ("-h", "--help"):
        methods = listing({name: found.summary for name, found in entries("finetuning").items()})
        algorithms = ", ".join(name for name in entries() if finetuners_of(name))
        print(HELP.format(methods=methods, presets=listing(PRESETS), algorithms=algorithms), end="")
    elif args[0].startswith("--resume"):
        _resume(args)
    elif args[0].startswith("-"):
        raise LegatoError("finetune needs a run first: legato finetune runs/ds4-... --env Hopper-v4")
    else:
        _finetune(args[0], args[1:])


def _finetune(source: str, args: list[str]) -> None:
    preset, method, env = _asked(args)
    parsing.expect(parsing.of_dataclass(FinetuneSettings))
    before = source if from_scratch(source) else Run(source)
    algorithm = before.algorithm if isinstance(before, Run) else before
    method = choose_method(before, method)
    config, settings = finetuning_defaults(before, method, preset, env)
    options = [
        *parsing.of_dataclass(Begin, Begin(method=method, preset=cast(Name, preset))),
        *parsing.of_dataclass(type(config), config),
        *parsing.of_dataclass(type(settings), settings, without=("env_options",)),
    ]
    summary = entry(method, "finetuning").summary
    if not isinstance(before, Run):
        summary += " Defaults are those from scratch; of a run: 'legato finetune RUN --help'."
    given = parsing.parse(options, args, f"legato finetune {source}", summary)

    from legato import api

    given |= {"env": env, "env_options": values(given.pop("env_option")), "base": _base(algorithm, given["base"])}
    print(plain(api.finetune(source, **given).place))


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


def _resume(args: list[str]) -> None:
    given = parsing.parse(parsing.of_dataclass(Resume), args, "legato finetune", Resume.__doc__ or "")

    from legato import api

    given["env_options"] = values(given.pop("env_option"))
    print(plain(api.finetune(**{name: value for name, value in given.items() if value is not None}).place))


def _asked(args: Sequence[str]) -> tuple[str, str | None, str | None]:
    """What `--preset`, `--method` and `--env` say; they decide the defaults of all other options."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("--preset", "--method", "--env"):
        parser.add_argument(name, nargs="?")
    known, _ = parser.parse_known_args(args)
    return known.preset or "cpu", known.method, known.env
