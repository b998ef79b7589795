"""The commands: parse, call the library, print. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from legato.errors import LegatoError, LegatoWarning, unknown

COMMANDS = {
    "demo": "train SRL-8, SAC and SAC-4 on Pendulum and compare them at every decision frequency",
    "train": "train an algorithm: legato train srl --env Hopper-v5 --horizon 4 --preset paper",
    "finetune": "let policies from logs go on learning by acting: legato finetune RUN --env Hopper-v4",
    "evaluate": "measure a run at every decision frequency, with delays, and score it: legato evaluate RUN",
    "compare": "put several runs in one table and figure: legato compare RUN RUN ...",
    "collect": "write a policy's episodes as a dataset: legato collect RUN --steps 100000 --out mine/logs-v0",
    "data": "look at logged episodes, check and convert them: legato data info D4RL/door/human-v2",
    "predict": "how far ahead a Trajectory Transformer's model foretells: legato predict RUN --dataset held-out.npz",
    "play": "play one episode of a run, or film it: legato play RUN --video out.mp4",
    "attention": "see which tokens a transformer's predictions attend to: legato attention RUN --layer 1",
    "list": "what there is: legato list algorithms|envs|presets",
}

USAGE = """usage: legato COMMAND [options]

Sequence-model reinforcement learning: policies that read a history and write a sequence of actions.

commands:
{commands}

options:
  -h, --help     this text; 'legato COMMAND --help' explains a command
  --version      print the version
  --debug        show the traceback of an error (with any command)
"""


def main(argv: Sequence[str] | None = None) -> None:
    """The entry point. Bad input ends with one line on stderr and exit code 2; Ctrl-C with 130."""
    args = [*(sys.argv[1:] if argv is None else argv)]  # once its command was imported, `list` is that module here
    debug = "--debug" in args
    if debug:
        args.remove("--debug")
    try:
        with warnings.catch_warnings():
            _shorten_warnings()
            _dispatch(args)
    except LegatoError as problem:
        if debug:
            raise
        print(f"error: {' '.join(str(problem).split())}", file=sys.stderr)
        sys.exit(2)
    except OSError as problem:  # a full disk, a folder that may not be written to
        if debug:
            raise
        where = f"'{problem.filename}': " if problem.filename else ""
        print(f"error: {where}{problem.strerror or problem}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as stop:
        print(str(stop) or "stopped", file=sys.stderr)
        sys.exit(130)


def _shorten_warnings() -> None:
    """The library's own warnings are one line, like its errors."""
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *rest: Any) -> None:
        if issubclass(category, LegatoWarning):
            print(f"warning: {message}", file=sys.stderr)
        else:
            usual(message, category, *rest)

    warnings.showwarning = show


def _dispatch(args: list[str]) -> None:
    if not args or args[0] in ("-h", "--help", "help"):
        print(
            USAGE.format(commands="\n".join(f"  {name:<10} {text}" for name, text in COMMANDS.items())),
            end="",
        )
        return
    if args[0] == "--version":
        from legato import __version__

        print(__version__)
        return
    command, *rest = args
    if command not in COMMANDS:
        raise unknown("command", command, COMMANDS)
    importlib.import_module(f"legato.cli.{command}").run(rest)
